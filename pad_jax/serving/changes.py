"""A catalogue that changes after training: items that are added, and known ones under other titles."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from pad_jax.data.dataset import frequency_buckets
from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import vectors_of
from pad_jax.models.towers import ItemVectors
from pad_jax.serving.artifact import Artifact
from pad_jax.text.settings import beside
from pad_jax.text.source import as_made, encoded_as


def encoded(
    artifact: Artifact, texts: Sequence[str], vectors: Float[np.ndarray, "R E"] | None
) -> Float[np.ndarray, "R E"] | None:
    """Vectors as they are, or else of texts by the encoders of the run."""
    if vectors is not None:
        return vectors
    config, text = artifact.scorer.config, artifact.text
    configs = [as_made(of, table.manifest) for of, table in zip((config, *beside(config)), text.tables, strict=False)]
    return encoded_as(text, configs, texts)


def added(
    artifact: Artifact,
    item_ids: Sequence[str],
    titles: Sequence[str],
    texts: Sequence[str],
    vectors: Float[np.ndarray, "R E"] | None,
) -> Artifact:
    """The model with items more that training never saw; see `Model.with_items`, which says what it raises.

    Args:
        artifact: the model.
        item_ids: of the new items.
        titles: what lists show of them.
        texts: what encoders read.
        vectors: of the texts; None where all text tables are of words.
    """
    there = set(artifact.item_ids)
    twice = [item for item, count in Counter(item_ids).items() if count > 1 or item in there]
    if twice:
        raise UserError(f"item {twice[0]!r} is in the model already, or twice among the new ones")
    if not len(titles) == len(texts) == len(item_ids):
        raise UserError(f"each of {len(item_ids)} new items needs a title: there are {len(titles)}")
    new, gates = _unknown(artifact, artifact.text.rows(texts, vectors), texts)
    return replace(
        artifact,
        item_ids=[*artifact.item_ids, *item_ids],
        titles=[*artifact.titles, *titles],
        vectors={e: jax.tree.map(lambda a, b: np.concatenate([a, b]), artifact.vectors[e], new[e]) for e in new},
        gates=np.concatenate([artifact.gates, gates]),
        counts=None if artifact.counts is None else np.pad(artifact.counts, (0, len(item_ids))),
        trained=artifact.of_training,
    )


def retitled(
    artifact: Artifact,
    numbers: Int32[np.ndarray, " R"],
    titles: Sequence[str],
    texts: Sequence[str],
    vectors: Float[np.ndarray, "R E"] | None,
) -> Artifact:
    """The model with other titles of some items; see `Model.retitle`, which says what it raises.

    Args:
        artifact: the model.
        numbers: of the items, all different.
        titles: what lists show of them.
        texts: what encoders read.
        vectors: of the texts; None: they are encoded here, if the model reads more than words.
    """
    if not len(titles) == len(texts) == len(numbers):
        raise UserError(f"each of {len(numbers)} items needs a title: there are {len(titles)}")
    experts, shown = artifact.scorer.experts, list(artifact.titles)
    for number, title in zip(numbers, titles, strict=True):
        shown[number - 1] = title
    reading = _reading(experts)
    if not reading:
        return replace(artifact, titles=shown)
    fixed = [e for e in reading if not EXPERTS[e].knows_new]
    if fixed:
        raise UserError(f"the expert {fixed[0]!r} cannot read other texts than those of its training: train anew")
    text = artifact.text.rows(texts, encoded(artifact, texts, vectors))
    changed = jax.tree.map(np.array, {e: artifact.vectors[e] for e in experts}), np.array(artifact.gates)
    old = numbers <= artifact.of_training
    for some, made in ((old, partial(_known, numbers=numbers[old])), (~old, _unknown)):
        if some.any():
            new = made(artifact, text[some], [own for own, one in zip(texts, some, strict=True) if one])
            for whole, part in zip(jax.tree.leaves(changed), jax.tree.leaves(new), strict=True):
                whole[numbers[some]] = part
    return replace(artifact, titles=shown, vectors=changed[0], gates=changed[1])


def _reading(experts: Sequence[str]) -> list[str]:
    return [e for e in experts if EXPERTS[e].reads_text or EXPERTS[e].reads_titles]


def _unknown(
    artifact: Artifact, text: Float[np.ndarray, "R E"], texts: Sequence[str]
) -> tuple[dict[str, Any], np.ndarray]:
    """Vectors and gates of items that training never saw."""
    scorer, count = artifact.scorer, len(texts)
    rows = {e: _new_rows(artifact, e, text, texts) for e in scorer.experts if EXPERTS[e].knows_new}
    items = scorer.vectors_from(artifact.params, rows, _float32(text), jnp.arange(count))
    vectors = jax.tree.map(np.asarray, vectors_of(items))
    for expert in scorer.experts:
        if expert not in rows:
            nothing = jax.tree.map(lambda x: np.zeros((count, *x.shape[1:]), x.dtype), artifact.vectors[expert])
            vectors[expert], items[expert] = nothing, ItemVectors(nothing)
    coldest = jnp.full(count, scorer.config.data.buckets), jnp.zeros(count, jnp.int32)
    gates = np.array(scorer.gates(artifact.params, items, *coldest))
    for number, expert in enumerate(scorer.experts):
        if expert not in rows:
            gates[:, number] = 0
    return vectors, np.float32(scorer.of_new) * gates / gates.sum(axis=1, keepdims=True)


def _known(
    artifact: Artifact, text: Float[np.ndarray, "R E"], texts: Sequence[str], numbers: Int32[np.ndarray, " R"]
) -> tuple[dict[str, Any], np.ndarray]:
    """Vectors and gates of items of the training under other texts."""
    scorer, counts, rows = artifact.scorer, np.asarray(artifact.known_counts, np.int64), {}
    config = scorer.config
    for name in _reading(scorer.experts):
        table = artifact.tables.get(name)
        table = None if table is None else jnp.asarray(table)
        new = _new_rows(artifact, name, text, texts)
        rows[name] = EXPERTS[name].retitled_rows(config, table, numbers, counts[numbers], new)
    items = scorer.vectors_from(artifact.params, rows, _float32(text), jnp.arange(len(texts)))
    vectors = jax.tree.map(np.asarray, vectors_of(items))
    for expert in scorer.experts:
        if expert not in rows:
            vectors[expert] = jax.tree.map(lambda x: x[numbers], artifact.vectors[expert])
            items[expert] = ItemVectors(vectors[expert])
    bucket, _ = frequency_buckets(counts, config.data.buckets)
    of_items = jnp.asarray(bucket)[numbers], jnp.asarray(counts)[numbers]
    return vectors, np.array(scorer.gates(artifact.params, items, *of_items))


def _new_rows(artifact: Artifact, name: str, text: Float[np.ndarray, "R E"], texts: Sequence[str]) -> Any:
    """What the expert looks up of items that it knows by their texts alone."""
    expert, table, arrays = EXPERTS[name], artifact.tables.get(name), artifact.arrays.get(name, {})
    more: dict[str, Any] = {"titles": texts} if expert.reads_titles else {}
    return expert.new_rows(artifact.scorer.config, table, arrays, _float32(text), **more)


def _float32(text: Float[np.ndarray, "R E"]) -> Float[Array, "R E"]:
    return jnp.asarray(text).astype(jnp.float32)
