"""The service under load: requests per second and latency beside the bare model call, soak, fuzz.

PAD with random weights in the shape of recipe `best` over generated items, in a process of its own, on loopback; who
asks and who answers share the machine. A request is a list of 10 for a history of 9.

--soak SECONDS asks with twice as many connections as requests may wait: every answer has to be 200 or 503, and no
connection may break. --fuzz N sends N requests of nonsense: every answer to bad input has to be one line of JSON, and
none a 500. --search N times N queries of the search of titles, as somebody types a word or two of a title, over
generated titles of 6 to 12 words: a list of 10, without the service around it.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import requests

from benchmarks import serving
from benchmarks.harness import Report, arguments, run
from benchmarks.problem import configuration, generated
from pad_jax.errors import UserError
from pad_jax.models.scorer import Scorer
from pad_jax.service.titles import Titles
from pad_jax.serving import Model
from pad_jax.serving.artifact import Text

_CONNECTIONS = (1, 16, 64)
_K = 10
_TITLES = (8_347, 100_000)  # Prime Pantry's, and those of a larger shop
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD")
_PATHS = ("/", "/recommend", "/similar", "/items", "/users", "/models", "/health", "/metrics", "/openapi.json", "/x")


def model_of(items: int) -> Model:
    """Random weights over generated items, with histories of some users."""
    dataset = generated(events=20_000, items=items)
    config = configuration(recipe="best")
    model = serving.model_of(Scorer(config, ("id", "aligned", "text"), config.gate.kind), dataset)
    rows = [(f"u{u}", [str(i) for i in np.random.default_rng(u).integers(0, items, 9)]) for u in range(100)]
    frame = pl.DataFrame(rows, {"user": pl.String, "history": pl.List(pl.String)}, orient="row")
    text = Text(config.model.width, {"encoder": "random"})
    return Model(replace(model.artifact, text=text, counts=dataset.counts), frame)


@contextlib.contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """(port, process) of a service of the model in a folder; it ends with SIGTERM, and has to end well."""
    command = [sys.executable, "-m", "pad_jax.serve", str(folder), "--port=0", "--reload=0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "http://" in line), "")
        if not line:
            raise UserError("the service did not start")
        try:
            yield int(line.partition("http://")[2].split("/")[0].rpartition(":")[2]), psutil.Process(process.pid)
        finally:
            process.terminate()
            process.stdout.read()
    if process.returncode:
        raise UserError(f"the service ended with exit code {process.returncode}")


async def ask(port: int, bodies: Iterator[bytes], seconds: float, connections: int) -> tuple[Counter, list[float]]:
    """(how many of each status, "broken" for a connection that broke; seconds of those answered 200)."""
    until, statuses, took = time.perf_counter() + seconds, Counter(), []

    async def client() -> None:
        reader = writer = None
        while time.perf_counter() < until:
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                body, began = next(bodies), time.perf_counter()
                writer.write(
                    b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body
                )
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(length)
                status = int(head[9:12])
                statuses[status] += 1
                if status == 200:
                    took.append(time.perf_counter() - began)
                else:
                    await asyncio.sleep(0.05)
            except (OSError, asyncio.IncompleteReadError):
                statuses["broken"] += 1
                writer = None
        if writer is not None:
            writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return statuses, took


def histories(items: int) -> Iterator[bytes]:
    """Bodies without end."""
    drawn = np.random.default_rng(0)
    while True:
        yield json.dumps({"history": [str(i) for i in drawn.integers(0, items, 9)], "k": _K}).encode()


def nonsense(seed: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """(method, path with query, body, headers) without end: near what is right, far from it, and raw bytes."""
    draw = random.Random(seed)
    names = ["model", "user", "history", "k", "items", "exclude", "exclude_history", "popularity", "diversity"]
    names += ["explain", "target", "by", "item", "query", "random", "", "x" * 50, "__class__"]

    def text() -> str:
        pool = [
            "",
            "u1",
            "1",
            "2",
            "fused",
            "text",
            "green tea",
            "../../etc/passwd",
            "<script>",
            "\ud800",
            "\0",
            "\u2028",
        ]
        pool += ["'; DROP TABLE", "%s%n", "é" * 200, "a" * draw.randrange(3000), "9" * 30, "\x1b[31m", "{}", "null"]
        return draw.choice(pool)

    def value(depth: int = 0) -> Any:
        numbers = [0, 1, -1, 5, 10**30, -(2**63), 1e308, -0.0, 0.5, 0.999, 2.5, True, False, None]
        kind = draw.randrange(8)
        if kind < 3 or depth > 3:
            return draw.choice(numbers)
        if kind < 5:
            return text()
        if kind < 7:
            return [value(depth + 1) for _ in range(draw.choice([0, 1, 3, 40]))]
        return {text(): value(depth + 1) for _ in range(draw.randrange(4))}

    def body() -> bytes:
        kind = draw.randrange(10)
        if kind == 0:
            return bytes(draw.randrange(256) for _ in range(draw.randrange(200)))
        if kind == 1:
            return draw.choice(
                [b"[" * 5000, b'{"k":' * 3000, b"NaN", b'{"k": 1e999}', b'{"k": ' + b"9" * 5000 + b"}", b"{}", b""]
            )
        fields = {draw.choice(names): value() for _ in range(draw.randrange(5))}
        if kind > 4:  # nearly right
            fields |= {"history": [str(draw.randrange(40)) for _ in range(draw.randrange(12))]}
            fields |= {draw.choice(names[3:11]): value() for _ in range(draw.randrange(2))}
        content = json.dumps(fields).encode()
        return content[: draw.randrange(len(content))] if draw.random() < 0.1 else content

    def query() -> str:
        pairs = [(draw.choice(names), text()) for _ in range(draw.choice([0, 1, 1, 2, 4]))]
        return "&".join(
            f"{requests.utils.quote(n)}={requests.utils.quote(v.encode('utf-8', 'replace'))}" for n, v in pairs
        )

    while True:
        path = draw.choice(_PATHS)
        method = draw.choice(_METHODS) if draw.random() < 0.2 else "POST" if path in _PATHS[1:3] else "GET"
        headers = (
            {} if draw.random() < 0.8 else {"content-type": draw.choice(["text/plain", "multipart/form-data", "x"])}
        )
        asked = query()
        yield method, path + (f"?{asked}" if asked else ""), body() if method in ("POST", "PUT") else b"", headers


#: (method, path, body, headers) -> (status, content)
Send = Callable[[str, str, bytes, dict[str, str]], tuple[int, bytes]]


def fuzz(send: Send, count: int, seed: int = 0) -> Counter:
    """Statuses of so many requests of nonsense. Raises AssertionError for an answer that should not be."""
    statuses: Counter = Counter()
    for (method, path, body, headers), _ in zip(nonsense(seed), range(count), strict=False):
        status, content = send(method, path, body, headers)
        told = f"{method} {path[:200]} {body[:300]!r}: {status} {content[:300]!r}"
        assert status < 500, told
        assert b"Traceback" not in content, told
        assert b'File "' not in content, told
        if status >= 400 and method != "HEAD":
            found = json.loads(content)
            assert list(found) == ["error"], told
            assert found["error"], told
            assert found["error"].isprintable(), told
        statuses[status] += 1
    return statuses


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--items", type=int, default=8347, help="items of the catalogue (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="as serve.batch (default %(default)s)")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS")
    parser.add_argument("--fuzz", type=int, default=0, metavar="REQUESTS")
    parser.add_argument("--search", type=int, default=0, metavar="QUERIES")
    options = parser.parse_args()
    if options.search:
        with Report("service", _columns(options)) as report:
            for count in _TITLES:
                report.add(titles=count, queries=options.search, **searched(count, options.search))
        return
    with tempfile.TemporaryDirectory() as place, Report("service", _columns(options)) as report:
        model = model_of(options.items)
        model.save(Path(place) / "model", histories=True)
        if options.fuzz:
            with started(Path(place) / "model") as (port, _):
                report.add(requests=options.fuzz, **_named(_fuzzed(port, options.fuzz)))
        elif options.soak:
            soak(report, Path(place) / "model", options)
        else:
            throughput(report, model, Path(place) / "model", options)


def _columns(options: Any) -> tuple[str, ...]:
    if options.fuzz:
        return ("requests", "200", "400", "404", "405")
    if options.search:
        return ("titles", "queries", "build_s", "median_ms", "p99_ms", "most_ms")
    if options.soak:
        return ("connections", "waiting", "seconds", "200", "503", "broken", "MiB_before", "MiB_after")
    return ("connections", "requests_per_second", "p50_ms", "p99_ms", "bare_ms", "bare_batch_per_second")


def searched(count: int, queries: int) -> dict[str, float]:
    """Seconds of the index of so many titles, and milliseconds of queries in it."""
    drawn = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(drawn.choice(letters, drawn.integers(2, 10))) for _ in range(20_000)]
    odds = 1 / (1 + np.arange(len(vocabulary)))  # Zipf's law
    words = drawn.choice(len(vocabulary), (count, 12), p=odds / odds.sum())
    titles = [" ".join(vocabulary[w] for w in row[: 6 + n % 7]) for n, row in enumerate(words)]
    began = time.perf_counter()
    index = Titles(titles, drawn.integers(0, 100, count))
    build, took = time.perf_counter() - began, []
    for title in drawn.choice(titles, queries):
        begin = int(drawn.integers(0, 5))
        whole = " ".join(title.split()[begin : begin + int(drawn.integers(1, 3))])
        query = whole[: int(drawn.integers(1, len(whole) + 1))]
        began = time.perf_counter()
        index.search(query, _K)
        took.append(1000 * (time.perf_counter() - began))
    median, p99 = np.percentile(took, [50, 99])
    return {"build_s": build, "median_ms": median, "p99_ms": p99, "most_ms": max(took)}


def _named(statuses: Counter) -> dict[str, int]:
    return {str(status): count for status, count in sorted(statuses.items(), key=str)}


def _fuzzed(port: int, count: int) -> Counter:
    with requests.Session() as session:

        def send(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
            answer = session.request(method, f"http://127.0.0.1:{port}{path}", data=body, headers=headers, timeout=60)
            return answer.status_code, answer.content

        return fuzz(send, count)


def throughput(report: Report, model: Model, folder: Path, options: Any) -> None:
    """A line for each number of connections, beside the model called without a service."""
    rows = [json.loads(next(bodies))["history"] for bodies in [histories(options.items)] for _ in range(400)]

    def timed(size: int) -> float:
        model.recommend(rows[:size], _K)
        seconds = []
        for begin in range(0, len(rows), size):
            began = time.perf_counter()
            model.recommend(rows[begin : begin + size], _K)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds))

    bare, batch = timed(1), timed(options.batch)
    with started(folder, f"--batch={options.batch}") as (port, _):
        for connections in _CONNECTIONS:
            asyncio.run(ask(port, histories(options.items), 1, connections))
            statuses, took = asyncio.run(ask(port, histories(options.items), options.seconds, connections))
            if set(statuses) != {200}:
                raise AssertionError(f"answers were {_named(statuses)}")
            p50, p99 = np.percentile(took, [50, 99])
            report.add(
                connections=connections,
                requests_per_second=len(took) / options.seconds,
                p50_ms=1000 * p50,
                p99_ms=1000 * p99,
                bare_ms=1000 * bare,
                bare_batch_per_second=options.batch / batch,
            )


def soak(report: Report, folder: Path, options: Any) -> None:
    """Twice as many connections as may wait, and how much memory the service has before and after."""
    waiting = 32
    with started(folder, f"--batch={options.batch}", f"--waiting={waiting}") as (port, process):
        asyncio.run(ask(port, histories(options.items), min(5.0, options.soak), 2 * waiting))
        before = process.memory_info().rss >> 20
        statuses, _ = asyncio.run(ask(port, histories(options.items), options.soak, 2 * waiting))
        after = process.memory_info().rss >> 20
    report.add(
        connections=2 * waiting,
        waiting=waiting,
        seconds=options.soak,
        **_named(statuses),
        broken=statuses["broken"],
        MiB_before=before,
        MiB_after=after,
    )
    if set(statuses) - {200, 503, "broken"} or statuses["broken"]:
        raise AssertionError(f"answers were {_named(statuses)}")


if __name__ == "__main__":
    run(main)
