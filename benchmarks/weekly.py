"""Week by week: a model that is left alone, one that goes on from last week's, and one that is trained anew.

The last weeks of MovieTweetings ($PAD_JAX_DATA/movietweetings), one step each: validation has the first event of each
user in the week before, training what came before that week, and every user is asked for the first event of the week,
with all events before it as the history. Candidates are the films that somebody has rated by its end and the user has
not; one that a model does not know, nor can by its title, is never found.

    kept    the model of the week before the first, as it is; new films by their titles where the method reads texts
    warm    from last week's warm model (config.start), its items' rows times --scale, for --epochs epochs a phase
    anew    from fresh parameters, for up to --anew epochs a phase, as validation says

CPU seconds are of the whole command: reading, compiling, training, ranking, baselines, export. Lines are kept in
<workdir>/<method>/weekly.jsonl; a killed run goes on, with a training that was not finished from its beginning.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import pad_jax
from benchmarks.harness import Report, arguments, run
from benchmarks.own_data import figures
from pad_jax.data.table import TableSettings, read_catalogue
from pad_jax.errors import UserError
from pad_jax.serving import Model

WEEK = 7 * 24 * 3600
TEXT = "{title}, {genres}"
WAYS = ("kept", "warm", "anew")


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--weeks", type=int, default=10, help="steps, the last ones of the data (default %(default)s)")
    parser.add_argument("--method", default="sasrec", help="(default %(default)s)")
    parser.add_argument("--epochs", type=int, default=2, help="of the warm model, a phase (default %(default)s)")
    parser.add_argument(
        "--scale", type=float, default=0.5, help="train.start_scale of the warm model (default %(default)s)"
    )
    parser.add_argument("--anew", type=int, default=30, help="at most, of the new model, a phase (default %(default)s)")
    parser.add_argument("--workdir", default="runs/weekly", help="(default %(default)s)")
    parser.add_argument("settings", nargs="*", help="further --config.FIELD=VALUE of all training, after --")
    options = parser.parse_args()
    tables = Path(os.environ.get("PAD_JAX_DATA", "data")) / "movietweetings"
    events = pl.read_parquet(tables / "events.parquet").with_columns(pl.col("user", "item").cast(pl.String))
    items = pl.read_parquet(tables / "items.parquet").with_columns(pl.col("item").cast(pl.String))
    folder = Path(options.workdir) / options.method
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "weekly.jsonl"
    identity = {n: getattr(options, n) for n in ("epochs", "scale", "anew", "settings")}
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    if any(line["of"] != identity for line in lines):
        raise UserError(f"{log} is of other --epochs, --scale, --anew or settings; name another --workdir")
    end = int(events["time"].max()) + 1  # type: ignore[arg-type]
    known = {(line["week"], line["way"]): line for line in lines}
    columns = ("week", "way", "users", "unknown", "hr10", "ndcg10", "epochs", "cpu", "share")
    first = options.weeks + 1
    few: dict[str, Any] = {f"{phase}.epochs": options.epochs for phase in ("pretrain", "align", "finetune")}
    few |= {"train.start_scale": options.scale}
    with Report("weekly", columns) as report:
        for week in range(first, 0, -1):
            asked, place = end - week * WEEK, folder / f"week-{week:02d}"
            tables_of(place, events, items, asked + WEEK)
            fresh = train(place, "anew", asked, options, {})
            if week == first:
                continue
            last = folder / f"week-{week + 1:02d}" / ("anew" if week + 1 == first else "warm")
            warm = train(place, "warm", asked, options, few | {"start": last})
            for way, spent in zip(WAYS, ({"cpu": 0.0, "epochs": 0}, warm, fresh), strict=True):
                if (week, way) not in known:
                    model = pad_jax.load(folder / f"week-{first:02d}" / "anew" if way == "kept" else place / way)
                    line = {"week": week, "way": way, **ask(model, place, asked), **spent}
                    known[week, way] = line | {"share": spent["cpu"] / fresh["cpu"]}
                    with open(log, "a") as file:
                        file.write(json.dumps(known[week, way] | {"of": identity}) + "\n")
                report.add(**{name: known[week, way][name] for name in columns})
        for way in WAYS:
            of = [line for (_, w), line in known.items() if w == way]
            means = {n: float(np.mean([line[n] for line in of])) for n in ("hr10", "ndcg10", "epochs", "cpu")}
            share = sum(line["cpu"] for line in of) / sum(known[line["week"], "anew"]["cpu"] for line in of)
            counts = {n: sum(line[n] for line in of) for n in ("users", "unknown")}
            report.add(week="all", way=way, **counts, **means, share=share)


def tables_of(place: Path, events: pl.DataFrame, items: pl.DataFrame, end: int) -> None:
    """The tables of a week as they are at its end."""
    place.mkdir(parents=True, exist_ok=True)
    until = events.filter(pl.col("time") < end)
    until.write_parquet(place / "events.parquet")
    items.join(until.select("item"), on="item", how="semi", maintain_order="left").write_parquet(
        place / "items.parquet"
    )


def train(place: Path, way: str, asked: int, options: Any, more: dict[str, Any]) -> dict[str, Any]:
    """CPU seconds and epochs of a model for the week that begins at `asked`, made where it is not there yet."""
    spent = place / f"{way}.json"
    if spent.exists():
        return json.loads(spent.read_text())
    shutil.rmtree(place / way, ignore_errors=True)  # the seconds of a part are nobody's
    flags = {
        "dataset": f"weekly-{place.name}",
        "method": options.method,
        "table.events": place / "events.parquet",
        "table.catalogue": place / "items.parquet",
        "table.text": TEXT,
        "text.encoder": "tfidf",
        "data.time": (asked - WEEK, asked),
        "data.length": 20,
        "eval.serve": "last",
        **{f"{phase}.epochs": options.anew for phase in ("pretrain", "align", "finetune")},
        **more,
    }
    command = [sys.executable, "main.py", "--config=configs/table.py:all", f"--workdir={place / way}"]
    command += [*(f"--config.{name}={value}" for name, value in flags.items()), *options.settings]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code := subprocess.run(command).returncode:
        sys.exit(code)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = json.loads((place / way / "results.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = {"cpu": cpu, "epochs": sum(phase["epochs"] for phase in results["phases"].values())}
    spent.write_text(json.dumps(told))
    return told


def ask(model: Model, place: Path, asked: int) -> dict[str, Any]:
    """HR@10 and nDCG@10 in percent of each user's first event from `asked` on, and how many such films are unknown."""
    new = read_catalogue(place / "items.parquet", TableSettings(text=TEXT)).filter(
        ~pl.col("item").is_in(model.item_ids)
    )
    if new.height and model.knows_new_items:
        model = model.with_items(new["item"].to_list(), new["title"].to_list(), texts=new["text"].to_list())
    frame = pl.read_parquet(place / "events.parquet").sort("user", "time", maintain_order=True)
    later = pl.col("time") >= asked
    users = frame.group_by("user", maintain_order=True).agg(
        before=pl.col("item").filter(~later), target=pl.col("item").filter(later).first()
    )
    users = users.filter(pl.col("target").is_not_null() & (pl.col("before").list.len() > 0))
    known = set(model.item_ids)
    histories = [[item for item in items if item in known] for items in users["before"]]
    can = [n for n, target in enumerate(users["target"]) if target in known and histories[n]]
    ranks = np.full(users.height, np.inf)
    ranks[can] = model.ranks([histories[n] for n in can], [users["target"][n] for n in can])
    return figures(ranks) | {"unknown": sum(target not in known for target in users["target"])}


if __name__ == "__main__":
    run(main)
