"""What the API takes and gives, as OpenAPI 3.1; tests hold real answers to it."""

from collections.abc import Mapping
from typing import Any

from pad_jax.service import ServeSettings
from pad_jax.service.checks import POPULARITY
from pad_jax.version import VERSION

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_ID: Schema = {"type": ["string", "integer"]}


def description(settings: ServeSettings) -> Schema:
    """The document, with the limits of a service."""
    ids: Schema = {"type": "array", "items": _ID, "maxItems": settings.ids}
    k: Schema = {"type": "integer", "minimum": 1, "maximum": settings.k, "default": 10}
    model: Schema = _TEXT | {"description": "a name of /models; the first one where it is not given"}
    asked = {
        "model": model,
        "user": _ID | {"description": "whose history the model has; this or `history`"},
        "history": ids | {"maxItems": settings.history, "description": "item ids, oldest first"},
        "k": k,
        "items": ids | {"description": "the only candidates, as what is in stock"},
        "exclude": ids | {"description": "what is left out, beside the history"},
        "exclude_history": {"type": "boolean", "default": True},
        "popularity": _NUMBER
        | {
            "minimum": -POPULARITY,
            "maximum": POPULARITY,
            "default": 0,
            "description": "adds popularity * log(1 + training events) to each score",
        },
        "diversity": _NUMBER
        | {
            "minimum": 0,
            "exclusiveMaximum": 1,
            "default": 0,
            "description": "picks among max(100, 4 k) candidates by maximal marginal relevance; a k above 25 counts as "
            "the next of 50, 100, 250, 500, 1000 here",
        },
        "explain": {"type": "boolean", "default": False, "description": "items say `because`, an event of the history"},
        "target": _ID
        | {"description": "an item whose rank is told, among all but those of the history, without dials"},
    }
    about_item = {
        "item": _TEXT,
        "title": _TEXT,
        "count": _COUNT | {"type": ["integer", "null"], "description": "training events"},
        "group": {"enum": ["warm", "median", "cold", "unseen", None]},
    }
    item = _object(about_item)
    listed = about_item | {
        "score": _NUMBER,
        "expert": _TEXT | {"description": "with the largest part; `fallback` for a history without a known item"},
        "parts": {
            "type": "object",
            "additionalProperties": _NUMBER,
            "description": "of the score, by expert: gate x its score; they add up to it, but for `popularity`",
        },
        "because": {"type": ["string", "null"]},
    }
    several = {"type": "array", "items": item}
    whose = {"model": _TEXT, "version": _TEXT}
    lists = _object(
        whose
        | {
            "user": {"type": ["string", "null"]},
            "known": _COUNT | {"description": "events of the history that the model knows"},
            "items": {"type": "array", "items": _object(listed, optional=["because"])},
            "target": _object(about_item | {"rank": {"type": ["number", "null"]}}),
        },
        optional=["target"],
    )
    with_score = _object(about_item | {"score": _NUMBER | {"description": "cosine"}})
    alike = _object(about_item | {"items": {"type": "array", "items": with_score}})
    models = _object(
        {
            "name": _TEXT,
            "method": _TEXT,
            "dataset": _TEXT,
            "items": _COUNT,
            "experts": {"type": "array", "items": _TEXT},
            "similar_by": {"type": "array", "items": _TEXT},
            "users": _COUNT,
            "version": _TEXT,
            "loaded": _NUMBER,
            "test": {"type": ["object", "null"], "additionalProperties": _NUMBER},
        }
    )
    similar = {
        "200": _answer("similar items", _object(whose | {"by": _TEXT, "similar": {"type": "array", "items": alike}}))
    }
    listed_once = _query("item", _TEXT | {"description": "may be given several times"})
    return {
        "openapi": "3.1.0",
        "info": {"title": "pad_jax", "version": VERSION, "description": "Lists of a trained sequential recommender."},
        "paths": {
            "/recommend": {
                "post": _operation("a list", {"200": _answer("the list", lists)}, body=_object(asked, asked))
            },
            "/similar": {
                "get": _operation(
                    "items like an item",
                    similar,
                    [_query("model", model), listed_once, _query("k", k), _query("by", _TEXT)],
                ),
                "post": _operation(
                    "items like each of some",
                    similar,
                    body=_object({"model": model, "items": ids, "k": k, "by": _TEXT}, ["model", "k", "by"]),
                ),
            },
            "/items": {
                "get": _operation(
                    "items by title, or by their ids",
                    {"200": _answer("items", _object({"model": _TEXT, "items": several}))},
                    [_query("model", model), _query("query", _TEXT), listed_once, _query("k", k)],
                )
            },
            "/users": {
                "get": _operation(
                    "users by the beginning of their ids, or the history of one",
                    {
                        "200": _answer(
                            "users, or a history",
                            {
                                "oneOf": [
                                    _object({"model": _TEXT, "users": {"type": "array", "items": _TEXT}}),
                                    _object(
                                        {
                                            "model": _TEXT,
                                            "user": _TEXT,
                                            "history": several,
                                            "last_unseen": {
                                                "type": "boolean",
                                                "description": "whether the last event is the test target, which "
                                                "training has not seen",
                                            },
                                        }
                                    ),
                                ]
                            },
                        )
                    },
                    [
                        _query("model", model),
                        _query("query", _TEXT),
                        _query("user", _TEXT),
                        _query("random", _TEXT | {"description": "any value: any users"}),
                        _query("k", k),
                    ],
                )
            },
            "/models": {
                "get": _operation(
                    "the models", {"200": _answer("them", _object({"models": {"type": "array", "items": models}}))}
                )
            },
            "/health": {
                "get": _operation(
                    "whether it answers",
                    {
                        "200": _answer(
                            "it does",
                            _object(
                                {"status": {"const": "ok"}, "models": {"type": "object", "additionalProperties": _TEXT}}
                            ),
                        )
                    },
                )
            },
        },
    }


def _object(properties: Mapping[str, Schema], optional: Any = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, "additionalProperties": False}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _answer(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _operation(text: str, answers: Schema, parameters: Any = (), body: Schema | None = None) -> Schema:
    error = _answer("what is wrong, in one line", _object({"error": _TEXT}))
    found: Schema = {"summary": text, "responses": {**answers, "4XX": error, "503": error}}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return found
