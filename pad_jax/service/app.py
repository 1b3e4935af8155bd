"""The application: routes, limits, newer models, and the server that runs it."""

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pad_jax import boundary
from pad_jax.console import complain, flush, say
from pad_jax.errors import UserError
from pad_jax.service import ServeSettings
from pad_jax.service.batches import Batches, BusyError
from pad_jax.service.checks import POPULARITY, Fields, RefusedError, body_of, one_line
from pad_jax.service.hosts import Hosts
from pad_jax.service.models import Asked, Options, Served, Source
from pad_jax.service.openapi import description
from pad_jax.service.page import page

_SLOW = 20.0  # seconds in which a body has to be there
_RECOMMEND = (
    "model",
    "user",
    "history",
    "k",
    "items",
    "exclude",
    "exclude_history",
    "popularity",
    "diversity",
    "explain",
    "target",
)
_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}


class Service:
    """Models and what answers requests of them."""

    def __init__(self, sources: Sequence[Source], settings: ServeSettings, folder: Path | None = None):
        """
        Args:
            sources: of the models; the first is the one that is asked where a request names none.
            settings: limits.
            folder: where the traceback of an error that nobody expected goes.
        """
        self.settings, self.folder = settings, folder
        self.registry = CollectorRegistry()
        self.requests = Counter("pad_jax_requests", "answers", ("route", "status"), registry=self.registry)
        self.seconds = Histogram("pad_jax_request_seconds", "time to the answer", ("route",), registry=self.registry)
        self.sizes = Histogram(
            "pad_jax_batch_size",
            "requests of a call",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.loads = Counter("pad_jax_model_loads", "models loaded", ("model", "result"), registry=self.registry)
        self.loaded = Gauge("pad_jax_model_loaded_seconds", "when, since 1970", ("model",), registry=self.registry)
        waiting = Gauge("pad_jax_waiting_requests", "that wait or are worked on", registry=self.registry)
        waiting.set_function(lambda: self.batches.waiting)
        self.sources = list(sources)
        self.signatures = [source.signature for source in self.sources]
        self.models: dict[str, Served] = {}
        for source in self.sources:
            self._use(self._ready(source))
        self.batches = Batches(settings.batch, settings.waiting, self.sizes.observe)
        self.stopping = False

    def _ready(self, source: Source) -> Served:
        served = source.served()
        served.warm_up(self.settings.batch, self.settings.k)
        return served

    def _use(self, served: Served) -> None:
        self.models[served.name] = served
        self.loads.labels(served.name, "ok").inc()
        self.loaded.labels(served.name).set(served.loaded)

    async def look(self) -> None:
        """Newer models in place of those whose files have changed; one that cannot be read is none."""
        for place, source in enumerate(self.sources):
            signature = source.signature
            if signature in (None, self.signatures[place]):
                continue
            self.signatures[place] = signature
            try:
                served = await asyncio.to_thread(self._ready, source)
                self._use(served)
                say(f"{source.name}: a newer model is served ({len(served.number):,} items)")
            except Exception as error:
                self.loads.labels(source.name, "failed").inc()
                complain(f"{source.name}: the model before is still served: {_why(error)}")

    async def watch(self) -> None:
        """Looks for newer models for ever."""
        while True:
            await asyncio.sleep(self.settings.reload)
            await self.look()

    def model(self, fields: Fields) -> Served:
        """The one that a request names. Raises RefusedError."""
        name = fields.text("model", next(iter(self.models)))
        if name not in self.models:
            raise RefusedError(404, f"there is no model {name!r}: it is one of {', '.join(self.models)}")
        return self.models[name]

    # what is answered

    async def recommend(self, request: Request) -> Any:
        limits = self.settings
        fields = Fields(await self._body(request), _RECOMMEND, limits)
        served = self.model(fields)
        user, history = fields.identifier("user"), fields.ids("history", limits.history)
        if fields.has("history") == (user is not None):
            raise RefusedError(400, "name a user or a history, one of the two")
        if user is not None:
            found = served.history(user) if limits.users else None
            if found is None:
                raise RefusedError(404, f"there is no history of user {user!r}")
            history = found[-limits.history :]
        items = tuple(dict.fromkeys(fields.ids("items", limits.ids))) if fields.has("items") else None
        if items is not None and not any(item in served.number for item in items):
            raise RefusedError(400, "items: the model knows none of them, so that nothing is left to list")
        target = fields.identifier("target")
        if target is not None and target not in served.number:
            raise RefusedError(404, f"target: there is no item {target!r}")
        options = Options(
            fields.length(10, min(limits.k, len(served.number))),
            fields.flag("exclude_history", True),
            items,
            fields.number("popularity", -POPULARITY, POPULARITY),
            fields.number("diversity", 0.0, 1.0, below=True),
            fields.flag("explain", False),
        )
        asked = Asked(user, history, fields.ids("exclude", limits.ids), target)
        return await self.batches.ask((served, options), lambda several: served.lists(options, several), asked)

    async def similar(self, request: Request) -> Any:
        limits, names = self.settings, ("model", "items", "k", "by")
        if request.method == "POST":
            fields = Fields(await self._body(request), names, limits)
            items = fields.ids("items", limits.ids)
        else:
            fields, items = self._query(request, ("model", "item", "k", "by")), request.query_params.getlist("item")
        served = self.model(fields)
        if not items or len(items) > limits.ids:
            raise RefusedError(400, f"name from 1 to {limits.ids:,} items")
        unknown = next((item for item in items if item not in served.number), None)
        if unknown is not None:
            raise RefusedError(404, f"there is no item {unknown!r}")
        by = fields.text("by", "fused")
        if by not in served.by:
            raise RefusedError(400, f"by={by!r} has no vectors in this model: it is one of {', '.join(served.by)}")
        options = (fields.length(10, min(limits.k, len(served.number))), by)

        def work(several: Sequence[list[str]]) -> list[Any]:
            rows = iter(served.similar(options, [item for own in several for item in own]))
            return [[next(rows) for _ in own] for own in several]

        found = await self.batches.ask((served, "similar", options), work, items)
        return {"model": served.name, "version": served.seal, "by": by, "similar": found}

    async def items(self, request: Request) -> Any:
        fields = self._query(request, ("model", "query", "item", "k"))
        served = self.model(fields)
        if "item" in request.query_params:
            ids = request.query_params.getlist("item")
            if len(ids) > self.settings.history:
                raise RefusedError(400, f"item is given {len(ids):,} times, more than {self.settings.history:,}")
            return {"model": served.name, "items": [served.item(served.number[i]) for i in ids if i in served.number]}
        k = fields.length(10, self.settings.k)
        return {"model": served.name, "items": served.search(fields.text("query", ""), k)}

    async def users(self, request: Request) -> Any:
        fields = self._query(request, ("model", "query", "user", "random", "k"))
        served = self.model(fields)
        if not self.settings.users:
            raise RefusedError(404, "this service tells no histories (serve.users)")
        user = fields.identifier("user")
        if user is None:
            k = fields.length(10, self.settings.k)
            found = served.any_users(k) if fields.has("random") else served.users(fields.text("query", ""), k)
            return {"model": served.name, "users": found}
        history = served.history(user)
        if history is None:
            raise RefusedError(404, f"there is no history of user {user!r}")
        events = [served.item(served.number[item]) for item in history[-self.settings.history :]]
        return {"model": served.name, "user": user, "history": events, "last_unseen": user in served.unseen}

    async def about(self, _: Request) -> Any:
        return {"models": [served.about for served in self.models.values()]}

    async def health(self, _: Request) -> Any:
        if self.stopping:
            raise RefusedError(503, "stopping")
        return {"status": "ok", "models": {name: served.seal for name, served in self.models.items()}}

    async def openapi(self, _: Request) -> Any:
        return description(self.settings)

    def _query(self, request: Request, names: Sequence[str]) -> Fields:
        """Each once, but for `item`."""
        twice = [n for n in request.query_params if n != "item" and len(request.query_params.getlist(n)) > 1]
        if twice:
            raise RefusedError(400, f"{twice[0]} is given twice")
        return Fields(dict(request.query_params), names, self.settings)

    async def _body(self, request: Request) -> dict[str, Any]:
        most, parts, size = self.settings.body, [], 0
        try:
            async with asyncio.timeout(_SLOW):
                async for part in request.stream():
                    size += len(part)
                    if size > most:
                        raise RefusedError(413, f"the body has more than {most:,} bytes")
                    parts.append(part)
        except TimeoutError as error:
            raise RefusedError(408, f"the body was not there after {_SLOW:.0f} seconds") from error
        return body_of(b"".join(parts))

    def endpoint(self, function: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """An answer as JSON, and what is refused as {"error"}."""

        async def answer(request: Request) -> Response:
            try:
                return _json(await function(request))
            except RefusedError as error:
                return _json({"error": str(error)}, error.status, {"retry-after": "1"} if error.status == 503 else {})
            except BusyError:
                return _json({"error": "too many requests wait; try again"}, 503, {"retry-after": "1"})
            except UserError as error:
                return _json({"error": one_line(str(error))}, 400)
            except ClientDisconnect:
                return Response(status_code=499)
            except Exception as error:
                if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                    return _json({"error": "out of memory; try again"}, 503, {"retry-after": "5"})
                complain(
                    f"{request.url.path}: {type(error).__name__}; its traceback is in {boundary.kept(self.folder)}"
                )
                return _json({"error": "an error that nobody expected"}, 500)

        return answer


def application(service: Service) -> Starlette:
    """The routes of a service."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette):
        watching = asyncio.create_task(service.watch()) if service.settings.reload else None
        yield
        service.stopping = True
        if watching is not None:
            watching.cancel()
        await asyncio.to_thread(service.batches.close)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(service.registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    content, policy = page()

    async def home(_: Request) -> Response:
        return Response(content, media_type="text/html", headers={"content-security-policy": policy})

    paths: dict[str, tuple[Callable[[Request], Awaitable[Any]], list[str]]] = {
        "/recommend": (service.recommend, ["POST"]),
        "/similar": (service.similar, ["GET", "POST"]),
        "/items": (service.items, ["GET"]),
        "/users": (service.users, ["GET"]),
        "/models": (service.about, ["GET"]),
        "/health": (service.health, ["GET"]),
        "/openapi.json": (service.openapi, ["GET"]),
    }
    routes = [Route(path, service.endpoint(function), methods=methods) for path, (function, methods) in paths.items()]
    routes += [Route("/metrics", metrics), Route("/", home)]

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = {404: "there is no such path", 405: "this path has another method"}.get(error.status_code, error.detail)
        return _json({"error": what}, error.status_code, error.headers or {})

    middleware = [
        Middleware(_Counted, service=service, known={*paths, "/", "/metrics"}),
        Middleware(_Named, hosts=Hosts(service.settings.host, service.settings.hosts)),
    ]
    if service.settings.origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(service.settings.origins),
                allow_headers=["content-type"],
                allow_methods=["GET", "POST"],
            )
        )
    return Starlette(
        routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers={HTTPException: refused}
    )


class _Counted:
    """Headers of every answer, and its place in the metrics."""

    def __init__(self, app: ASGIApp, service: Service, known: set[str]):
        self.app, self.service, self.known = app, service, known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # as nginx says: whoever asked has gone

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in _HEADERS.items())]
            await send(message)

        route = scope["path"] if scope["path"] in self.known else "other"
        try:
            await self.app(scope, receive, sending)
        finally:
            self.service.requests.labels(route, str(status)).inc()
            self.service.seconds.labels(route).observe(time.perf_counter() - started)


class _Named:
    """Refuses requests to another host; Starlette's `TrustedHostMiddleware` knows no addresses and answers in text."""

    def __init__(self, app: ASGIApp, hosts: Hosts):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = Headers(scope=scope).getlist("host") if scope["type"] == "http" else []  # HTTP/1.0 may name none
        app, other = self.app, next((host for host in named if not self.hosts.allow(host)), None)
        if other is not None:
            app = _json({"error": one_line(f"host {other[:100]!r} is not served here: name it in serve.hosts")}, 421)
        await app(scope, receive, send)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # ASCII: a request may bring half a letter that no encoding knows
    content = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Response(content, status, dict(headers or {}), "application/json")


class _Server(uvicorn.Server):
    """Ends after SIGTERM or SIGINT as a program that did all it was asked; a second signal does not wait."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def run_until_stopped(sources: Sequence[Source], settings: ServeSettings, folder: Path | None = None) -> None:
    """Serves until SIGTERM or SIGINT, and then answers what is in flight.

    Raises UserError for an address that cannot be had, and what the models raise.
    """
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(
            f"config.serve.host={settings.host} config.serve.port={settings.port} cannot be listened on ({why}); "
            "name others"
        ) from error
    with listening:
        service = Service(sources, settings, folder)
        config = uvicorn.Config(
            application(service),
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(int(settings.drain), 1),
            backlog=2048,
            ws="none",
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        names = ", ".join(service.models)
        say(f"{names}: http://{host}:{listening.getsockname()[1]}/ until Ctrl-C")
        flush()
        _Server(config).run(sockets=[listening])
    say("stopped; what was in flight is answered")


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__} {error}"
