"""Users of each group with their lists and true next items, as one HTML file that needs no server."""

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pad_jax.data.dataset import FREQUENCY_GROUPS, Dataset, Split, frequency_group
from pad_jax.evaluation.metrics import hit_ratio, ndcg
from pad_jax.pipeline import Run
from pad_jax.service.page import functions, hashed, inside, style
from pad_jax.serving import Model
from pad_jax.workdir.results import read_ranks

EACH = 50  # users of a group
_K, _SEED = 10, 0


class Lists(NamedTuple):
    """What recommends, and the ranks of the targets of all S users of the test split under it."""

    name: str
    model: Model
    ranks: Float[np.ndarray, " S"]
    served: bool = False


def users_page(title: str, runs: Mapping[str, Run]) -> bytes:
    """The file: users drawn of the test split, the same ones whatever the runs are.

    Args:
        title: what the page says it is of.
        runs: finished ones of one dataset, by the names that the page calls them; the first with each of its phases,
            the others with the phase that they serve.
    """
    (first, run), *_ = runs.items()
    lists = []
    for name, of in runs.items():
        served = of.served
        for phase in of.method.phases if of is run else (served,):
            ranks = read_ranks(of.path, of.workdir.of)[f"test/{phase.name}"]
            model = Model(of.artifact(phase))
            lists.append(Lists(f"{name}, {phase.name}", model, ranks, name == first and phase is served))
    return page_of(contents(title, run.dataset, run.splits["test"], lists))


def drawn(dataset: Dataset, split: Split) -> dict[str, Int[np.ndarray, " n"]]:
    """Places in a split of `EACH` users of each group, drawn with a fixed seed; of a smaller one all."""
    groups = frequency_group(dataset.counts[split.target])
    return {
        name: np.sort(np.random.default_rng(_SEED).permutation(np.flatnonzero(mask))[:EACH])
        for name, mask in groups.items()
    }


def contents(title: str, dataset: Dataset, split: Split, lists: list[Lists]) -> dict[str, Any]:
    """What the page shows, as JSON: items by their places in `items`, the lists of each user in the order of `lists`.

    The model sees what it saw when `split` was ranked, and the same items are left out: those the user had met.
    """
    groups = drawn(dataset, split)
    sizes = {name: int(mask.sum()) for name, mask in frequency_group(dataset.counts[split.target]).items()}
    places = np.concatenate(list(groups.values()))
    ids = np.array(["", *dataset.item_ids], object)
    histories = [row[row > 0] for row in split.inputs[places]]
    met = [row[row > 0] for row in split.history[places]]
    k = min(_K, dataset.items)
    asked = [ids[own].tolist() for own in histories], k
    found = [own.model.recommend(*asked, exclude=[ids[row].tolist() for row in met]) for own in lists]
    number = {item: n for n, item in enumerate(dataset.item_ids, 1)}
    seen: dict[int, int] = {}  # item numbers -> places in `items`

    def place(item: int) -> int:
        return seen.setdefault(item, len(seen))

    users = []
    owners = np.repeat(np.arange(len(groups)), [len(own) for own in groups.values()])
    for row, (user, history) in enumerate(zip(split.user[places].tolist(), histories, strict=True)):
        shown = []
        for own, made in zip(lists, found, strict=True):
            there = made.items[row] != ""
            assert made.parts is not None
            shown.append(
                {
                    "items": [place(number[item]) for item in made.items[row][there]],
                    "scores": _short(made.scores[row][there]),
                    "parts": _short(made.parts[row][there]),
                    "rank": float(own.ranks[places[row]]),
                }
            )
        before = int(dataset.cuts.test[user] - dataset.starts[user])
        users.append(
            {
                "user": dataset.user_ids[user],
                "group": int(owners[row]),
                "history": [place(item) for item in history.tolist()],
                "earlier": before - len(history),
                "target": place(int(split.target[places[row]])),
                "met": bool(split.target[places[row]] in met[row]),
                "lists": shown,
            }
        )
    kinds = {name: np.flatnonzero(mask) for name, mask in frequency_group(dataset.counts).items()}
    kind_of = {int(item): kind for kind, items in enumerate(kinds.values()) for item in items}
    return {
        "title": title,
        "seed": _SEED,
        "each": EACH,
        "k": k,
        "size": dataset.items,
        "groups": [
            {"name": name, "counts": _bounds(*FREQUENCY_GROUPS[name]), "users": size} for name, size in sizes.items()
        ],
        "items": [[dataset.titles[n - 1] or ids[n], int(dataset.counts[n]), kind_of[n]] for n in seen],
        "lists": [
            {
                "name": own.name,
                "served": own.served,
                "experts": list(own.model.artifact.scorer.experts),
                "popularity": own.model.artifact.popularity,
                "HR": float(hit_ratio(own.ranks, k).mean()),
                "nDCG": float(ndcg(own.ranks, k).mean()),
            }
            for own in lists
        ],
        "users": users,
    }


def page_of(shown: Mapping[str, Any]) -> bytes:
    """The page of some contents, with the look of the service's; its policy lets nothing else run and nothing load."""
    page = (files("pad_jax.studies") / "users.html").read_text(encoding="utf-8")
    page = page.replace("/* style of the service's page */", style())
    page = page.replace("/* functions of the service's page */", functions("make", "shares"))
    policy = (
        f"default-src 'none'; script-src {hashed(inside(page, 'script'))}; style-src {hashed(inside(page, 'style'))}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    before, behind = page.replace("<!-- policy -->", policy).split("<!-- contents -->")
    return f"{before}{text}{behind}".encode()


def _short(values: np.ndarray) -> list[Any]:
    return np.round(values.astype(np.float64), 3).tolist()


def _bounds(low: int, high: int | None) -> str:
    """A number of times, in words."""
    if high is None:
        return f"{low} or more"
    return "never" if high == 0 else f"{low} to {high}"
