"""The job `recommend`: top-k lists for all users or for histories in a file, to Parquet or JSON lines."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from pad_jax import parallel
from pad_jax.console import Task, progress, say
from pad_jax.data.dataset import Dataset
from pad_jax.data.files import first_line
from pad_jax.data.table import read_catalogue
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.registry import SECTIONS
from pad_jax.serving import Recommender, load
from pad_jax.settings import setting
from pad_jax.text import encode as text_encode
from pad_jax.text.table import check_settings, read_own

SCHEMA = {
    "user": pl.String,
    "rank": pl.Int32,
    "item": pl.String,
    "title": pl.String,
    "score": pl.Float32,
    "expert": pl.String,
}
_USERS = 4096  # whose lists are in memory at once
History = tuple[str, list[str]]


@dataclass(frozen=True)
class RecommendSettings:
    """The job `recommend`."""

    k: int = setting(10, "items of a list")
    histories: str = setting("", 'JSON lines {"user", "history"}; empty: all users of the dataset')
    catalogue: str = setting("", "file of items, some of which training never saw; columns as in `table`")
    vectors: str = setting("", "own text vectors of that catalogue, .npy or safetensors; empty: they are encoded")
    output: str = setting("", ".parquet or .jsonl; empty: <workdir>/recommendations.parquet")
    exclude_history: bool = setting(True, "leave items of the history out of the list")


SECTIONS.register("recommend", RecommendSettings)


def recommend(run: Run) -> None:
    """Writes the lists of every user: `.parquet` with a row for each item, `.jsonl` with a line for each user."""
    config = run.config.recommend
    if parallel.processes() > 1:
        raise UserError("the job recommend is work for one process: leave --processes out")
    path = Path(config.output) if config.output else run.workdir.path / "recommendations.parquet"
    if path.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"config.recommend.output={path} must end in .parquet or .jsonl")
    run.export()
    model = load(run.workdir.path)
    if config.catalogue:
        model = with_new_items(model, run)
    if not config.histories:
        say(f"histories are of the dataset: the latest {run.config.data.keep} events of each user (config.data.keep)")
    histories = read_histories(Path(config.histories)) if config.histories else of_dataset(run.dataset)
    known = set(model.item_ids)
    users = [(user, [item for item in items if item in known]) for user, items in histories]
    unknown = sum(len(h) for _, h in histories) - sum(len(h) for _, h in users)
    if unknown:
        say(f"{unknown:,} events of items that the model does not know are left out")
    silent = sum(not history for _, history in users)
    if silent:
        say(f"{silent:,} users without a known event get no list")
    users = [user for user in users if user[1]]
    if not users:
        raise UserError(f"{config.histories or run.config.dataset}: no user has an event that the model knows")
    if not 1 <= config.k <= len(model.item_ids):
        raise UserError(f"config.recommend.k={config.k} must be from 1 to the number of items, {len(model.item_ids):,}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress("recommend", len(users)) as bar:
            frames = lists(model, users, config.k, config.exclude_history, bar)
            if path.suffix == ".parquet":
                source = register_io_source(lambda *_: frames, schema=SCHEMA)
                source.sink_parquet(partial, maintain_order=True)
            else:
                write_json_lines(partial, frames)
        os.replace(partial, path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path} cannot be written ({first_line(error)}); set --config.recommend.output") from error
    finally:
        partial.unlink(missing_ok=True)
    say(f"lists of {len(users):,} users, {config.k} items each: {path}")


def lists(model: Recommender, users: list[History], k: int, exclude: bool, bar: Task) -> Iterator[pl.DataFrame]:
    """The lists as rows of `SCHEMA`, some users at a time."""
    for begin in range(0, len(users), _USERS):
        part = users[begin : begin + _USERS]
        found = model.recommend([history for _, history in part], k, exclude)
        count = len(part)
        frame = pl.DataFrame(
            {
                "user": np.repeat(np.array([user for user, _ in part], object), k),
                "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), count),
                "item": found.items.reshape(-1),
                "title": found.titles.reshape(-1),
                "score": found.scores.reshape(-1),
                "expert": found.experts.reshape(-1),
            },
            schema=SCHEMA,
        )
        yield frame.filter(pl.col("item") != "")
        bar.advance(count)


def write_json_lines(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """{"user", "items": [{"item", "title", "score", "expert"}, ..]} a line."""
    columns = pl.struct("item", "title", "score", "expert").alias("items")
    with open(path, "wb") as file:
        for frame in frames:
            file.write(frame.group_by("user", maintain_order=True).agg(columns).write_ndjson().encode())


def of_dataset(dataset: Dataset) -> list[History]:
    """Every user's history as the dataset has it: without `data.time` the latest `data.keep` events."""
    ids = dataset.item_ids
    parts = np.split(dataset.events, dataset.starts[1:-1])
    return [(user, [ids[i - 1] for i in part]) for user, part in zip(dataset.user_ids, parts, strict=True)]


def read_histories(path: Path) -> list[History]:
    """{"user": id, "history": [item ids, oldest first]} a line. Raises UserError, naming it, for anything else."""
    found: list[History] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                    user, history = row["user"], row["history"]
                    fine = isinstance(user, str) and isinstance(history, list)
                    fine = fine and all(isinstance(item, str) for item in history)
                    "".join([user, *history]).encode() if fine else None
                except (ValueError, TypeError, KeyError, RecursionError):
                    fine = False
                if not fine:
                    raise UserError(f'{path}, line {number}: must be {{"user": "u1", "history": ["item", ..]}}')
                found.append((user, history))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); set --config.recommend.histories") from error
    if len({user for user, _ in found}) < len(found):
        raise UserError(f"{path}: a user appears twice in the file; give each line its own")
    return found


def with_new_items(model: Recommender, run: Run) -> Recommender:
    """The model and those items of `recommend.catalogue` that it does not know, by their texts."""
    config, manifest = run.config, model.artifact.text.manifest
    path = Path(config.recommend.catalogue)
    items = read_catalogue(path, config.table)
    new = items.with_row_index("row").filter(~pl.col("item").is_in(model.item_ids))
    say(f"{path}: {new.height:,} new items, {items.height - new.height:,} that training knows")
    if not new.height:
        return model
    if not model.knows_new_items:
        raise UserError(f"method {config.method} knows item IDs alone and cannot score new items; leave {path} out")
    texts = new["text"].to_list()
    if config.recommend.vectors:
        vectors = read_own(Path(config.recommend.vectors), items.height, str(path))[new["row"].to_numpy()]
    elif manifest.get("own"):
        raise UserError(
            f"the model reads own vectors ({manifest['encoder']}), which no encoder makes: bring those of {path} "
            "with --config.recommend.vectors"
        )
    else:
        check_settings(run.text.path, manifest, config.text)
        vectors, _ = text_encode.encode(texts, config.text)
    return model.with_items(new["item"].to_list(), texts, vectors)
