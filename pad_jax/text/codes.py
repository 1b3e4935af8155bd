"""Texts as a few codes each: M books of K codes, learned once for a run from the text vectors alone.

A quantiser is a dictionary of arrays: `mean` [E] and `scale` [] of its inputs, an `encoder` where its kind has one, a
map `heads` [M, e, d] to what each book sees, and the `books` [M, K, d]:

    z_m = Enc((x - mean) scale) heads_m,   c_m = argmin_k |z_m - books_m[k]|^2

codes.kind  moc      after Mixture-of-Codes (Zhang et al. 2024, arXiv 2410.09560): one encoder for all, see `losses`
            product  product quantisation (Jegou et al. 2011): a book is k-means on its own slice of the vector
            random   a book is k-means on its own random projection
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Int32

from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.errors import UserError
from pad_jax.settings import setting

Quantiser = Mapping[str, Any]
_SAMPLE = 1 << 14  # items that k-means looks at
_ROUNDS = 20  # of k-means
_BATCH = 256  # items of a step
_RESEED = 50  # steps in which a code must have been of use


@dataclass(frozen=True)
class CodesSettings:
    kind: str = setting("moc", "how texts become codes, see text/codes.py", choices=("moc", "product", "random"))
    books: int = setting(7, "M, codes of an item", "P, its largest", least=1, below=1025)
    size: int = setting(256, "K, codes of a book", "O", least=2, below=65_537)
    latent: int = setting(32, "d, width of a code in its book; product: E / M", "O", least=1, below=65_537)
    hidden: tuple[int, ...] = setting((512, 256), "layers of moc's encoder, its decoder's backwards", "O", least=1)
    heads: bool = setting(False, "moc: each book has a projection of its own, the encoder only is common", "O")
    steps: int = setting(1000, f"of {_BATCH} items, that moc learns for", "O", unit="steps", least=0, below=10**6)
    learning_rate: float = setting(1e-3, "of AdamW in these", "O", above=0)
    bottleneck: int = setting(32, "width of the self-gate over an item's rows; 0: none", "O", least=0, below=65_537)
    fusion: str = setting("mean", "an item's vector of its gated rows", "O", choices=("mean", "linear"))
    company: str = setting(
        "alone", "of the codes in method moc; smem: aligned and text expert", "O", choices=("alone", "smem")
    )


class Layers(nn.Module):
    """Linear layers of these widths, ReLU between them."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Float[Array, "n _"]) -> Float[Array, "n _"]:
        for layer, width in enumerate(self.widths):
            x = nn.Dense(width)(nn.relu(x) if layer else x)
        return x


def nearest(z: Float[Array, "n M d"], books: Float[Array, "M K d"]) -> Int[Array, "n M"]:
    """The nearest code of each book, of equally near ones the first."""

    def some(z):
        products = jnp.einsum("nmd,mkd->nmk", z, books, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmin((books**2).sum(axis=-1)[None] - 2 * products, axis=-1)

    return map_blocks(some, z, rows_that_fit(books.shape[0] * books.shape[1]))


def rows_of(books: Float[Array, "M K d"], codes: Int[Array, "n M"]) -> Float[Array, "n M d"]:
    """The rows of the codes."""
    return books[jnp.arange(len(books))[None], codes]


def losses(
    decode: Callable[[Float[Array, "n d"]], Float[Array, "n E"]],
    x: Float[Array, "n E"],
    z: Float[Array, "n M d"],
    books: Float[Array, "M K d"],
) -> tuple[dict[str, Float[Array, ""]], Int[Array, "n M"]]:
    """The parts of the loss, and the codes: q_m = books_m[c_m], q and z without index are means over the books.

    rebuilt  |x - Dec(z + sg(q - z))|^2
    books    sum_m |sg z_m - q_m|^2
    encoder  1/4 sum_m |z_m - sg q_m|^2

    Squares are means over items and components. The paper gives neither weights nor widths: those are VQ-VAE's.
    """
    stop = jax.lax.stop_gradient
    codes = nearest(z, books)
    rows = rows_of(books, codes)
    middle, quantised = z.mean(axis=1), rows.mean(axis=1)
    parts = {
        "rebuilt": ((x - decode(middle + stop(quantised - middle))) ** 2).mean(),
        "books": ((stop(z) - rows) ** 2).mean(axis=(0, 2)).sum(),
        "encoder": 0.25 * ((z - stop(rows)) ** 2).mean(axis=(0, 2)).sum(),
    }
    return parts, codes


@jax.jit
def kmeans(z: Float[Array, "n M d"], books: Float[Array, "M K d"]) -> Float[Array, "M K d"]:
    """Lloyd's algorithm in each book from the codes it has; one that is nearest to nothing stays where it is."""

    def of_book(z, codes, book):
        total, count = (jax.ops.segment_sum(x, codes, len(book)) for x in (z, jnp.ones_like(z[:, :1])))
        return jnp.where(count > 0, total / jnp.maximum(count, 1), book)

    def again(books, _):
        return jax.vmap(of_book, in_axes=(1, 1, 0))(z, nearest(z, books), books), None

    return jax.lax.scan(again, books, None, length=_ROUNDS)[0]


def latents(quantiser: Quantiser, settings: CodesSettings, x: Float[Array, "n E"]) -> Float[Array, "n M d"]:
    """What each book sees of text vectors."""
    y = (x - quantiser["mean"][None]) * quantiser["scale"]
    if settings.kind == "moc":
        y = Layers((*settings.hidden, settings.latent)).apply({"params": quantiser["encoder"]}, y)
    return jnp.einsum("ne,med->nmd", y, quantiser["heads"])


def assign(quantiser: Quantiser, settings: CodesSettings, text: Float[Array | np.ndarray, "n E"]) -> Int[Array, "n M"]:
    """The codes 0 to K-1 of text vectors, those of a run's items or of any other."""

    def some(x):
        return nearest(latents(quantiser, settings, x), jnp.asarray(quantiser["books"]))

    return map_blocks(some, jnp.asarray(text, quantiser["mean"].dtype), _SAMPLE)


def learn(text: Float[np.ndarray, "N E"], settings: CodesSettings, seed: int) -> dict[str, Any]:
    """The quantiser of text vectors; the same for the same seed. Raises UserError for more slices than E."""
    random = np.random.default_rng(seed)
    mean = text.mean(axis=0, dtype=np.float64).astype(np.float32)
    x = text - mean
    variance = np.square(x).mean(dtype=np.float64)
    scale = np.float32(1 / np.sqrt(variance) if variance > 0 else 1)
    x *= scale
    quantiser = {"mean": mean, "scale": scale}
    if settings.kind == "moc":
        return quantiser | _moc(x, settings, random)
    books, width = settings.books, x.shape[1]
    if settings.kind == "product":
        if books > width:
            raise UserError(f"config.codes.kind=product cuts {width} numbers into books={books} slices: set fewer")
        slices = np.array_split(np.eye(width, dtype=np.float32), books, axis=1)
        heads = np.stack([np.pad(s, ((0, 0), (0, slices[0].shape[1] - s.shape[1]))) for s in slices])
    else:
        heads = random.normal(scale=width**-0.5, size=(books, width, settings.latent)).astype(np.float32)
    z = jnp.einsum("ne,med->nmd", x[random.permutation(len(x))[:_SAMPLE]], heads)
    return quantiser | {"heads": heads, "books": np.asarray(started([z] * books, settings.size, random))}


def started(samples: list[Float[Array, "n M d"]], size: int, random: np.random.Generator) -> Float[Array, "M K d"]:
    """Books by k-means, number m over what it sees of the m-th sample and from `size` points of it.

    Books that see the same of the same sample from the same points are one book M times: nothing in the loss would
    ever make them differ.
    """
    z = jnp.stack([sample[:, m] for m, sample in enumerate(samples)], axis=1)
    points = [np.resize(random.permutation(len(z)), size) for _ in samples]
    return kmeans(z, jnp.stack([z[rows, m] for m, rows in enumerate(points)]))


def _moc(x: Float[np.ndarray, "N E"], settings: CodesSettings, random: np.random.Generator) -> dict[str, Any]:
    """Encoder, heads and books of scaled vectors: AdamW on `losses`.

    The books start as k-means of a half of the items each, drawn anew for every book. A code that was of no item of
    `_RESEED` steps is put where an item of the last one is.
    """
    encoder = Layers((*settings.hidden, settings.latent))
    decoder = Layers((*settings.hidden[::-1], x.shape[1]))
    keys = jax.random.split(jax.random.key(int(random.integers(2**31))), 3)
    width, count = settings.latent, settings.books
    heads = jnp.broadcast_to(jnp.eye(width), (count, width, width))
    if settings.heads:
        heads = jax.random.orthogonal(keys[2], width, (count,))
    trained: dict[str, Any] = {
        "encoder": encoder.init(keys[0], jnp.zeros((1, x.shape[1])))["params"],
        "decoder": decoder.init(keys[1], jnp.zeros((1, width)))["params"],
    }
    trained |= {"heads": heads} if settings.heads else {}

    @jax.jit
    def see(trained, x):
        return jnp.einsum("ne,med->nmd", encoder.apply({"params": trained["encoder"]}, x), trained.get("heads", heads))

    half = min(-(-len(x) // 2), _SAMPLE)
    samples = [see(trained, x[random.permutation(len(x))[:half]]) for _ in range(count)]
    trained["books"] = started(samples, settings.size, random)
    optimizer = optax.adamw(settings.learning_rate)

    def loss(trained, x):
        z = see(trained, x)

        def decode(y: jax.Array) -> Any:
            return decoder.apply({"params": trained["decoder"]}, y)

        parts, codes = losses(decode, x, z, trained["books"])
        return sum(parts.values()), (z, codes)

    @jax.jit
    def step(trained, state, used, x, chosen, reseed):
        gradients, (z, codes) = jax.grad(loss, has_aux=True)(trained, x)
        updates, state = optimizer.update(gradients, state, trained)
        trained = optax.apply_updates(trained, updates)
        used = used.at[jnp.arange(count)[None], codes].set(True)
        fresh = z[chosen, jnp.arange(count)[:, None]]
        trained["books"] = jnp.where((used | ~reseed)[..., None], trained["books"], fresh)
        return trained, state, used & ~reseed

    state, used = optimizer.init(trained), jnp.zeros((count, settings.size), bool)
    for number in range(1, settings.steps + 1):
        batch = x[random.integers(len(x), size=_BATCH)]
        chosen = random.integers(_BATCH, size=used.shape)
        reseed = np.full((1, 1), number % _RESEED == 0)
        trained, state, used = step(trained, state, used, batch, chosen, reseed)
    kept = {"encoder": trained["encoder"], "heads": trained.get("heads", heads), "books": trained["books"]}
    return jax.tree.map(np.asarray, kept)


def mutual_information(first: Int[np.ndarray, " N"], second: Int[np.ndarray, " N"]) -> float:
    """Normalised mutual information 2 I(a, b) / (H(a) + H(b)) of two books: 1 for the same, whatever its numbers."""

    def entropy(codes):
        share = np.unique(codes, return_counts=True)[1] / len(codes)
        return -(share * np.log(share)).sum()

    own = entropy(first) + entropy(second)
    return float(2 - 2 * entropy(first.astype(np.int64) * (second.max() + 1) + second) / own) if own > 0 else 1.0


def summary(codes: Int32[np.ndarray, "N M"], size: int) -> str:
    """In one line: how many codes of each book are in use, and how much two books have in common.

    Few items make any two books look alike, so the same of shuffled books stands beside it.
    """
    used = [len(np.unique(book)) for book in codes.T]
    shuffled = np.random.default_rng(0).permuted(codes, axis=0)
    pairs = list(combinations(range(codes.shape[1]), 2))
    line = f"{len(codes):,} items, {len(used)} books; of {size} codes in use {', '.join(map(str, used))}"
    if not pairs:
        return line
    own, chance = (np.mean([mutual_information(c[:, a], c[:, b]) for a, b in pairs]) for c in (codes, shuffled))
    return f"{line}; mutual information of two books {own:.2f}, shuffled {chance:.2f}"
