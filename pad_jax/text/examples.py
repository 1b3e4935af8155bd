"""What an encoder is tuned on: the examples of an epoch, and those that are held out. Pure numpy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Num

from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.settings import Config
from pad_jax.text.clusters import preferences
from pad_jax.text.views import neighbours, parts_of, views


class Part(NamedTuple):
    """n examples of one text, or of two: then the second ones stand behind the first ones."""

    texts: Sequence[str]
    target: Num[np.ndarray, "n _"]  # numbers of the two texts, equal where the texts of the items are; or shares [n, k]


class Examples(NamedTuple):
    """`size` examples an epoch, and the held-out ones."""

    size: int
    draw: Callable[[np.random.Generator], Part]
    held_out: Part
    about: str
    mean: Float[np.ndarray, " k"]  # of the targets, for preference; otherwise empty


def examples(dataset: Dataset, config: Config, classes: Int[np.ndarray, " I"] | None = None) -> Examples:
    """The examples of `config.tune`.

    Args:
        dataset: the items and, but for views, the events of the training prefixes.
        config: of the run.
        classes: of the items, -1 for those that training never met; for preference alone.

    Raises UserError where there are too few of them.
    """
    own, random = config.tune, np.random.default_rng([config.seed, 0])
    if own.kind == "preference":
        assert classes is not None
        return _of_users(dataset, config, classes, random)
    number: dict[str, int] = {}
    of_item = np.array([-1, *(number.setdefault(text, len(number)) for text in dataset.texts)])
    texts = list(number)
    inside, outside = _halves(len(texts), config, "different texts", random)
    if own.kind == "views":
        several = sum(len(parts_of(text, own.separator)) > 1 for text in texts)
        if not several:
            raise UserError(
                f"no text of {dataset.name} has two parts with config.tune.separator={own.separator!r}, so no view "
                "would lack anything; set what stands between the parts of its texts"
            )

        def of(chosen: np.ndarray, random: np.random.Generator) -> Part:
            some = [texts[i] for i in chosen]
            both = [views(some, own.separator, own.drop, random) for _ in range(2)]
            return Part([*both[0], *both[1]], np.stack([chosen, chosen], axis=1))

        def draw(random: np.random.Generator) -> Part:
            found = of(inside, random if own.redraw else np.random.default_rng([config.seed, 0, 1]))
            place = random.permutation(len(inside))
            both = np.concatenate([place, place + len(inside)])
            return Part([found.texts[n] for n in both], found.target[place])

        about = f"two views of {len(inside):,} texts, {several / len(texts):.1%} of all have two parts or more"
        return Examples(len(inside), draw, of(outside, random), about, np.zeros(0))
    pairs, weight = neighbours(dataset, of_item)
    out = np.isin(pairs, outside).any(axis=1)
    trained, held = np.flatnonzero(~out), np.flatnonzero(out)
    if not len(trained):
        raise UserError(f"no two items of {dataset.name} with different texts follow each other in training")

    def among(mine: np.ndarray, size: int, random: np.random.Generator) -> Part:
        some = pairs[random.choice(mine, size, p=weight[mine] / weight[mine].sum())] if len(mine) else pairs[:0]
        return Part([texts[i] for i in some.T.reshape(-1)], some)

    about = f"{len(inside):,} pairs an epoch, of {len(trained):,} neighbours in training prefixes"
    part = among(held, len(outside), random)
    return Examples(len(inside), lambda random: among(trained, len(inside), random), part, about, np.zeros(0))


def _of_users(dataset: Dataset, config: Config, classes: np.ndarray, random: np.random.Generator) -> Examples:
    """Users by the titles of their training prefixes, the newest first."""
    own = config.tune
    users, shares = preferences(dataset, classes, own.clusters)
    inside, outside = _halves(len(users), config, "users", random)
    begins, ends = dataset.cuts.first[users], dataset.cuts.train_end[users]
    begins = np.maximum(begins, ends - own.history)  # a title is one token or more

    def of(chosen: np.ndarray) -> Part:
        rows = [dataset.events[begins[u] : ends[u]][::-1] for u in chosen]
        return Part([own.separator.join(dataset.texts[i - 1] for i in row) for row in rows], shares[chosen])

    mean = (shares[inside].sum(axis=0) + 1 / own.clusters) / (len(inside) + 1)  # one more that met all alike
    about = f"{len(inside):,} users and their shares of {own.clusters} classes of items"
    return Examples(len(inside), lambda random: of(random.permutation(inside)), of(outside), about, mean)


def _halves(count: int, config: Config, what: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which of them are trained on, and which held out: two or more, where any are."""
    held = max(2, round(config.tune.held_out * count)) if config.tune.held_out else 0
    if count - held < config.tune.batch:
        raise UserError(
            f"config.tune.batch={config.tune.batch} is more than the {max(count - held, 0)} {what} that are there to "
            "train on: set a smaller one"
        )
    order = random.permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])
