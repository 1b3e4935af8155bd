"""The job `evaluate`: ranks again with what a workdir has learned, on the data of its training or on later ones."""

import hashlib
from typing import Any

import numpy as np
import polars as pl

from pad_jax import parallel, sealed
from pad_jax.console import say
from pad_jax.data.assemble import Events
from pad_jax.data.dataset import ItemLists, Split
from pad_jax.data.readers import READERS, reader_name
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import ranks_by
from pad_jax.evaluation.metrics import summarize
from pad_jax.pipeline import Run
from pad_jax.recommend import with_new_items
from pad_jax.report import table
from pad_jax.sealed import FORMAT
from pad_jax.serving import Model
from pad_jax.workdir.identity import read_config
from pad_jax.workdir.results import read_results


def evaluate(run: Run) -> dict[str, Any]:
    """Ranks again, and returns the results.

    On the data of the training these are the run's own, written anew; on other data the ranks of the users' next events
    after the last one that training knew, in a file of their own.
    """
    reader = READERS[reader_name(run.config)]
    if reader.events is not None and parallel.processes() == 1 and _other_data(run):
        return evaluate_later(run, reader.events(run.config))
    run.evaluate()
    if run.is_finished:
        run.export()
    run.show()
    return run.workdir.results


def _other_data(run: Run) -> bool:
    """Whether the files hold other data than those of the training."""
    try:
        return run.dataset.fingerprint != read_config(run.path)["dataset_sha256"]
    except UserError:  # too few events to train on, or files that cannot be read, which is said when they are
        return True


def evaluate_later(run: Run, events: Events) -> dict[str, Any]:
    """HR, nDCG and MRR of the model for each user's first event after the training's last, with all events before it as
    the history.

    Raises UserError where events have no times, or none of them is later.
    """
    until = read_results(run.path).get("until")
    if events.cut is None:
        raise UserError(
            f"{run.path} was made from other data, and without times (config.table.time) nobody knows which events are "
            "later than those that it was trained on"
        )
    if run.config.eval.serve != read_config(run.path)["config"]["eval.serve"]:
        raise UserError(f"config.eval.serve={run.config.eval.serve} needs the tables of the training, not other ones")
    if until is None:
        raise UserError(
            f"{run.path} was made from other data, and it does not say when those ended: they had no times, or it was "
            "made by an earlier version; train anew"
        )
    model = with_new_items(run.model(), run)
    known = pl.DataFrame({"item": list(model.item_ids)})
    frame = events.frame.join(known, on="item", how="semi", maintain_order="left")
    frame = frame.sort("user", "time", maintain_order=True).with_columns(later=pl.col("time") > events.cut(until))
    users = frame.filter(pl.col("later").any().over("user")).group_by("user", maintain_order=True)
    parts = users.agg(
        before=pl.col("item").filter(~pl.col("later")), target=pl.col("item").filter(pl.col("later")).first()
    )
    new = int((parts["before"].list.len() == 0).sum())
    parts = parts.filter(pl.col("before").list.len() > 0)
    if not parts.height:
        raise UserError(
            f"{run.config.dataset} was made from other data, and no user has an event of a known item after {until}, "
            "where those of the training end, and one before"
        )
    say(
        f"other data than those of the training: {parts.height:,} users have an event after {until}, where those end; "
        f"{new:,} more have none before it and are left out"
    )
    ranks = model.ranks(parts["before"].to_list(), parts["target"].to_list())
    asked = run.config.eval.popularity
    results = {
        "format": FORMAT,
        "of": read_config(run.path)["of"],
        **{n: getattr(run.config, n) for n in ("dataset", "method", "backbone", "loss", "recipe", "seed")},
        "after": until,
        "phases": {run.served.name: {"popularity": {"asked": asked, "beta": model.artifact.popularity}}},
        "baselines": {},
    }
    split, counts = _as_split(model, parts)
    met = split.history.lengths
    test = summarize(run.config, ranks, split.target, counts, met)
    share = counts.astype(np.float32)
    popular = ranks_by(lambda inputs: np.broadcast_to(share, (len(inputs), len(share))), split, len(share))
    results["phases"][run.served.name]["test"] = results["test"] = test
    results["baselines"]["popularity"] = {"test": summarize(run.config, popular, split.target, counts, met)}
    made = hashlib.sha256("\n".join(map("\t".join, zip(frame["user"], frame["item"], strict=True))).encode())
    path = run.path / f"evaluation-{made.hexdigest()[:8]}.json"
    sealed.write_json(path, results)
    say("\n" + table.as_text(results) + f"\n\nresults: {path}")
    return results


def _as_split(model: Model, parts: pl.DataFrame) -> tuple[Split, np.ndarray]:
    """The users as a split of the model's items, and how often training met each of these."""
    counts = model.artifact.counts
    if counts is None:
        raise UserError("the model was made by an earlier version, without counts of its items: train anew")
    number = {item: n for n, item in enumerate(model.item_ids, 1)}
    histories = [sorted({number[item] for item in items}) for items in parts["before"]]
    last = [[0] * max(0, 2 - len(items)) + [number[item] for item in items[-2:]] for items in parts["before"]]
    target = np.array([number[item] for item in parts["target"]], np.int32)
    starts = np.concatenate([[0], np.cumsum([len(items) for items in histories])])
    met = ItemLists(np.concatenate(histories).astype(np.int32), starts)
    one = ItemLists(target, np.arange(len(target) + 1))
    return Split(np.arange(len(target), dtype=np.int32), np.array(last, np.int32), target, met, one), counts
