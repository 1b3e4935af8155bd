"""The job `recommend`: top-k lists for all users of today's data or for histories in a file, to Parquet or JSON lines.

It works with what a workdir has learned and with data as they are now: of events, those of items that the model knows
by id; of items that training never saw, those that it can know by text.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from pad_jax import parallel
from pad_jax.console import Task, progress, say
from pad_jax.data.assemble import histories_in, histories_of
from pad_jax.data.files import lines_of
from pad_jax.data.readers import READERS, reader_name
from pad_jax.data.table import read_catalogue
from pad_jax.data.tables import as_id
from pad_jax.errors import UserError
from pad_jax.files import file_atomically
from pad_jax.pipeline import Run
from pad_jax.registry import SECTIONS
from pad_jax.serving import Model
from pad_jax.serving.recommender import FALLBACK
from pad_jax.settings import setting
from pad_jax.text.settings import beside
from pad_jax.text.source import as_made, encoded_as
from pad_jax.text.table import read_own
from pad_jax.workdir.results import read_results

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
    histories: str = setting("", 'JSON lines {"user", "history"}; empty: all users of the data as they are today')
    catalogue: str = setting("", "file of items, some of which training never saw; empty: that of `table`")
    vectors: str = setting("", "own text vectors of that catalogue, .npy or safetensors; empty: they are encoded")
    output: str = setting("", ".parquet or .jsonl; empty: <workdir>/recommendations.parquet")
    exclude_history: bool = setting(True, "leave items of the history out of the list")


SECTIONS.register("recommend", RecommendSettings)


def recommend(run: Run) -> dict[str, Any]:
    """Writes the lists of every user: `.parquet` with a row for each item, `.jsonl` with a line for each user.

    Returns the results of the run.
    """
    config = run.config.recommend
    if parallel.processes() > 1:
        raise UserError("the job recommend is work for one process: leave --processes out")
    path = Path(config.output) if config.output else run.path / "recommendations.parquet"
    if path.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"config.recommend.output={path} must end in .parquet or .jsonl")
    model = with_new_items(run.model(), run)
    if beta := model.artifact.popularity:
        say(f"scores have {beta:+g} * log(1 + training count) (config.eval.popularity)")
    histories = read_histories(Path(config.histories)) if config.histories else of_today(run)
    known = set(model.item_ids)
    users = [(user, [item for item in items if item in known]) for user, items in histories]
    unknown = sum(len(h) for _, h in histories) - sum(len(h) for _, h in users)
    if unknown:
        say(f"{unknown:,} events of items that the model does not know are left out")
    silent = sum(not history for _, history in users)
    if silent and model.artifact.counts is None:
        say(f"{silent:,} users without a known event get no list: the model was made by an earlier version")
        users = [user for user in users if user[1]]
    elif silent:
        say(f"{silent:,} users without a known event get what is popular (expert {FALLBACK})")
    if not users:
        raise UserError(f"{config.histories or run.config.dataset}: no user has an event that the model knows")
    if not 1 <= config.k <= len(model.item_ids):
        raise UserError(f"config.recommend.k={config.k} must be from 1 to the number of items, {len(model.item_ids):,}")
    with file_atomically(path) as partial, progress("recommend", len(users)) as bar:
        frames = lists(model, users, config.k, config.exclude_history, bar)
        if path.suffix == ".parquet":
            source = register_io_source(lambda *_: frames, schema=SCHEMA)
            source.sink_parquet(partial, maintain_order=True)
        else:
            write_json_lines(partial, frames)
    say(f"lists of {len(users):,} users, {config.k} items each: {path}")
    return read_results(run.path)


def lists(model: Model, users: list[History], k: int, exclude: bool, bar: Task) -> Iterator[pl.DataFrame]:
    """The lists as rows of `SCHEMA`, some users at a time."""
    for begin in range(0, len(users), _USERS):
        part = users[begin : begin + _USERS]
        silent = np.array([not history for _, history in part])
        listed = model.recommend([history for _, history in part if history], k, exclude)
        popular = model.popular(k) if silent.any() else listed
        columns = []
        for name in ("items", "titles", "scores", "experts"):
            some, usual = getattr(listed, name), getattr(popular, name)
            column = np.empty((len(part), k), usual.dtype)
            column[~silent], column[silent] = some.reshape(-1, k), usual[:1]
            columns.append(column.reshape(-1))
        count = len(part)
        users_column = np.repeat(np.array([user for user, _ in part], object), k)
        ranks = np.tile(np.arange(1, k + 1, dtype=np.int32), count)
        items, titles, scores, experts = columns
        frame = pl.DataFrame([users_column, ranks, items, titles, scores, experts], schema=SCHEMA)
        yield frame.filter(pl.col("item") != "")
        bar.advance(count)


def write_json_lines(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """{"user", "items": [{"item", "title", "score", "expert"}, ..]} a line."""
    columns = pl.struct("item", "title", "score", "expert").alias("items")
    with open(path, "wb") as file:
        for frame in frames:
            file.write(frame.group_by("user", maintain_order=True).agg(columns).write_ndjson().encode())


def of_today(run: Run) -> list[History]:
    """The history of every user in the files as they are now, or where their reader knows no more in the dataset."""
    reader = READERS[reader_name(run.config)]
    if reader.events is None:
        if run.config.data.keep:
            say(f"histories are the latest {run.config.data.keep} events of each user (config.data.keep)")
        return histories_in(run.dataset).rows()
    events = reader.events(run.config)
    found = histories_of(events)
    say(f"{run.config.dataset}: {events.frame.height:,} events of {found.height:,} users today")
    return found.rows()


def read_histories(path: Path) -> list[History]:
    """{"user": id, "history": [item ids, oldest first]} a line, ids being text or whole numbers.

    Raises UserError, naming it, for a line that is anything else.
    """
    found: list[History] = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            user, history = row["user"], row["history"]
            fine = isinstance(history, list)
            user, history = as_id(user), [as_id(item) for item in history] if fine else []
        except (ValueError, TypeError, KeyError, RecursionError):
            fine = False
        if not fine:
            raise UserError(f'{path}, line {number}: must be {{"user": "u1", "history": ["item", ..]}}')
        found.append((user, history))
    if len({user for user, _ in found}) < len(found):
        raise UserError(f"{path}: a user appears twice in the file; give each line its own")
    return found


def with_new_items(model: Model, run: Run) -> Model:
    """The model and the items that it does not know, by their texts: those of `recommend.catalogue`, or where that and
    `recommend.histories` are empty those of today's catalogue.

    Raises UserError for a `recommend.catalogue` that cannot be known; of today's catalogue such items are left out, and
    one line says why.
    """
    config = run.config
    reader = READERS[reader_name(config)]
    if config.recommend.catalogue:
        path = Path(config.recommend.catalogue)
        items = read_catalogue(path, config.table)
    elif reader.catalogue is not None and config.table.catalogue:
        path, items = Path(config.data.path) / config.table.catalogue, reader.catalogue(config)
        gone = len(set(model.item_ids) - set(items["item"]))
        if gone:
            say(f"{gone:,} items of the model are not in {path}; they stay in the lists")
    else:
        return model
    new = items.with_row_index("row").filter(~pl.col("item").is_in(model.item_ids))
    if not new.height and not config.recommend.catalogue:
        return model
    say(f"{path}: {new.height:,} new items, {items.height - new.height:,} that training knows")
    if not new.height:
        return model
    try:
        return known_by_text(model, run, path, items.height, new)
    except UserError as error:
        if config.recommend.catalogue or config.recommend.vectors:
            raise
        say(f"the {new.height:,} new items are left out: {error}")
        return model


def known_by_text(model: Model, run: Run, path: Path, rows: int, new: pl.DataFrame) -> Model:
    """The model and new items.

    Args:
        model: that does not know them.
        run: whose model it is.
        path: of the catalogue that they stand in.
        rows: the number of its items.
        new: columns `item`, `title`, `text`, and `row` of the catalogue.
    """
    config, text = run.config, model.artifact.text
    if not model.knows_new_items:
        others = [phase.name for phase in run.method.phases if phase.reads_text]
        hint = f", or `evaluate` the tables of the training with --config.eval.serve={others[-1]}" if others else ""
        raise UserError(
            f"the phase {run.served.name} of method {config.method}, which is served, knows item IDs alone and cannot "
            f"score new items; leave {path} out{hint}"
        )
    texts = new["text"].to_list()
    own = next((table.manifest["encoder"] for table in text.brought if table.manifest.get("own")), None)
    if config.recommend.vectors:
        vectors = read_own(Path(config.recommend.vectors), rows, str(path))[new["row"].to_numpy()]
    elif own:
        raise UserError(
            f"the model reads own vectors ({own}), which no encoder makes: bring those of {path} "
            "with --config.recommend.vectors"
            + (", those of all its encoders side by side" if len(text.brought) > 1 else "")
        )
    else:
        configs = (config, *map(as_made, beside(config), (table.manifest for table in text.more)))
        vectors = encoded_as(text, configs, texts)
    return model.with_items(new["item"].to_list(), new["title"].to_list(), vectors, texts)
