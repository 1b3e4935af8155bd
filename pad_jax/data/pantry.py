"""Amazon Prime Pantry as the PAD authors publish it: three CSV files."""

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pad_jax.data.dataset import Dataset, from_sequences
from pad_jax.data.files import find_files, read_csv
from pad_jax.data.prepared import prepared
from pad_jax.data.readers import READERS, Reader
from pad_jax.errors import UserError
from pad_jax.settings import Config

FOLDER = "prime_pantry"
HISTORY, METADATA, FREQUENCY = "Prime_Pantry_cleaned_history.csv", "metadata_Prime_Pantry.csv", "Prime_Pantry_fre.csv"
COMMIT = "506c72d8650c205e96b006aa21e8c476d69f44de"
URL = f"https://raw.githubusercontent.com/Applied-Machine-Learning-Lab/PAD/{COMMIT}/dataset/"
SHA256 = {
    HISTORY: "9087dcb1c800b1270840fa7f5a037177fcb485e48c12aa04296203476fd69485",
    METADATA: "539a936c75d982305eb82b28f8f8e4a85cf88c002b492045d26e4f86502c85d0",
    FREQUENCY: "32a624102f826e37ced14924650415390bc88b3af543541740f0612e709ac678",
}


def load(config: Config, url: str = URL) -> Dataset:
    """The dataset, downloaded when it is not there. Raises UserError for files that are not as they should be."""
    paths = find_files(config.data, FOLDER, url, SHA256)
    return prepared(config, paths.values(), lambda: read(config, paths))


def read(config: Config, paths: Mapping[str, Path]) -> Dataset:
    """The three files as they are; all items of the metadata are candidates."""
    item_ids, titles = read_metadata(paths[METADATA])
    user_ids, sequences = read_history(paths[HISTORY], item_ids, config)
    whole = from_sequences(config.dataset, item_ids, titles, user_ids, sequences)
    check_frequencies(paths[FREQUENCY], whole)
    latest = [sequence[-config.data.keep :] for sequence in sequences]
    data = from_sequences(config.dataset, item_ids, titles, user_ids, latest)
    older = len(whole.events) - len(data.events)
    left = f"; not used: {older:,} before the latest {config.data.keep} of a user (data.keep)" if older else ""
    return replace(data, account=f"{len(whole.events):,} events read, {len(data.events):,} kept{left}")


def read_metadata(path: Path) -> tuple[list[str], list[str]]:
    """Item ids and titles in file order: the item's number is its row, from 1."""
    item_ids: list[str] = []
    titles: list[str] = []
    seen: set[str] = set()
    for line, row in read_csv(path, ("asin", "title")):
        if not row["title"].strip():
            raise UserError(f"{path}, line {line}: item {row['asin']!r} has an empty title; give it one")
        if row["asin"] in seen:
            raise UserError(f"{path}, line {line}: item {row['asin']!r} appears twice in the file; remove one")
        seen.add(row["asin"])
        item_ids.append(row["asin"])
        titles.append(row["title"])
    return item_ids, titles


def read_history(path: Path, item_ids: list[str], config: Config) -> tuple[list[str], list[np.ndarray]]:
    """Users and the numbers of their items in time order."""
    number = {item: index for index, item in enumerate(item_ids, 1)}
    user_ids: list[str] = []
    sequences: list[np.ndarray] = []
    for line, row in read_csv(path, ("user", "history")):
        items = _parse(path, line, row["history"])
        unknown = next((item for item in items if item not in number), None)
        if unknown is not None:
            raise UserError(f"{path}, line {line}: item {unknown!r} has no row in {path.parent / METADATA}; add it")
        if len(items) < config.data.min_events:
            raise UserError(
                f"{path}, line {line}: user {row['user']!r} has {len(items)} events, fewer than "
                f"{config.data.min_events}; remove the user or lower config.data.min_events"
            )
        user_ids.append(row["user"])
        sequences.append(np.array([number[item] for item in items], np.int32))
    if not user_ids:
        raise UserError(f"{path} has no users; it needs a row for each")
    return user_ids, sequences


def _parse(path: Path, line: int, text: str) -> list[str]:
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}, line {line}: the history is not a Python list: {text[:60]!r}") from error
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UserError(f"{path}, line {line}: the history is not a list of item ids: {text[:60]!r}")
    return items


def check_frequencies(path: Path, dataset: Dataset) -> None:
    """The authors' training counts must equal ours: otherwise the files do not belong together."""
    for line, row in read_csv(path, ("id", "fre")):
        try:
            item, count = int(row["id"]), int(row["fre"])
        except ValueError as error:
            raise UserError(f"{path}, line {line}: id and fre must be whole numbers") from error
        if not 0 <= item <= dataset.items or dataset.counts[item] != count:
            known = dataset.counts[item] if 0 <= item <= dataset.items else "no such item"
            raise UserError(
                f"{path}, line {line}: item {item} has count {count}, the histories say {known}; "
                f"{HISTORY} and {FREQUENCY} do not belong together"
            )


#: Items and ends of the buckets (official code).
KNOWN = 8347, [35, 100, 205, 361, 585, 898, 1357, 2074, 3348]
READERS.register("pantry", Reader(load, timed=False, known=KNOWN, defaults={"tune.separator": ", "}))
