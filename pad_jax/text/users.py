"""What users are like by the texts of what they met in training, and who is like whom."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int

from pad_jax import parallel, sealed
from pad_jax.blocks import map_blocks, rows_that_fit
from pad_jax.console import say
from pad_jax.data.dataset import Dataset
from pad_jax.errors import UserError
from pad_jax.files import write_atomically, writing
from pad_jax.sealed import DamagedError
from pad_jax.settings import Config
from pad_jax.text import encode
from pad_jax.text.transform import unit

FORMAT = 1  # of a file of users' vectors
#: Settings of the encoder that change its vectors.
_ENCODER = (
    *("encoder", "revision", "adapters", "bidirectional", "precision"),
    *("pooling", "normalize", "prompt", "max_length"),
)


def profiles(config: Config, dataset: Dataset, text: Float[np.ndarray, "I E"]) -> Float[np.ndarray, "U _"]:
    """A vector for each of `training_users`, of its whole training prefix and nothing behind it; see `llmesr.profile`.

    `text` is the table as training reads it. Raises UserError as `text_profiles`.
    """
    return mean_profiles(dataset, text) if config.llmesr.profile == "mean" else text_profiles(config, dataset)


def mean_profiles(dataset: Dataset, text: Float[np.ndarray, "I E"]) -> Float[np.ndarray, "U E"]:
    """The mean of the items' vectors over the prefix, an item as often as it occurs, at length 1."""
    prefixes = _prefixes(dataset)
    starts = np.concatenate([[0], np.cumsum([len(prefix) for prefix in prefixes])])
    events = np.concatenate(prefixes)
    weights = scipy.sparse.csr_matrix((np.ones(len(events), np.float32), events, starts), (len(prefixes), len(text)))
    return unit(weights @ text.astype(np.float32))


def profile_texts(dataset: Dataset) -> list[str]:
    """The titles of each prefix, newest first: what is cut off behind the encoder's tokens is the oldest."""
    return ["; ".join(dataset.titles[item - 1] for item in prefix[::-1]) for prefix in _prefixes(dataset)]


def text_profiles(config: Config, dataset: Dataset) -> Float[np.ndarray, "U E"]:
    """The vectors of `profile_texts` as the text encoder gives them with the settings of titles, from a file that is
    made when it is missing: `runs/<dataset>/users-<digest of all that they depend on>.safetensors`.

    Raises UserError where it is missing and there is no torch, or where it cannot be written, and DamagedError for a
    file of another dataset or encoder.
    """
    texts = profile_texts(dataset)
    about = {
        "format": FORMAT,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "texts_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        "settings": {name: getattr(config.text, name) for name in _ENCODER},
    }
    path = Path("runs") / config.dataset / f"users-{sealed.digest(about)[:12]}.safetensors"
    if parallel.is_main() and not path.exists():
        if not encode.available():
            raise UserError(
                f"config.llmesr.profile=text needs users' vectors, but there is no {path} and no torch to make them: "
                f"{encode.INSTALL}, copy the file from where they were made, or set --config.llmesr.profile=mean"
            )
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                if not path.exists():
                    rows, manifest = encode.encode(texts, config.text)
                    write_atomically(path, sealed.tensors({"users": rows}, about | {"manifest": manifest}))
                    say(f"users' vectors: {path}")
    parallel.wait("users")
    return read_profiles(path, about, len(texts))


def read_profiles(path: Path, about: dict[str, Any], users: int) -> Float[np.ndarray, "U E"]:
    """The vectors in a file, which must say of itself what `about` says. Raises DamagedError for any other."""
    cure = "remove it, and it is made again"
    arrays, found = sealed.read_tensors(path, FORMAT, cure)
    rows = arrays.get("users", np.zeros(0))
    for name, value in about.items():
        if sealed.digest(found.get(name)) != sealed.digest(value):
            raise DamagedError(path, f"was made for another {name}", cure)
    if rows.ndim != 2 or len(rows) != users or not np.isfinite(rows).all():
        raise DamagedError(path, f"does not hold {users} vectors of numbers", cure)
    return rows


def _prefixes(dataset: Dataset) -> list[Int[np.ndarray, " _"]]:
    """The training prefix of each of `training_users`, oldest first."""
    users = dataset.training_users
    begins, ends = dataset.cuts.first[users], dataset.cuts.train_end[users]
    return [dataset.events[begin:end] for begin, end in zip(begins, ends, strict=True)]


def nearest(rows: Float[np.ndarray, "U E"], k: int) -> Int[np.ndarray, "U k"]:
    """The k other rows with the largest cosine, the nearest first, the earlier one of equals; never the row itself.

    Some rows at a time: memory grows with U, and time with its square. k is below U.
    """
    return np.asarray(_nearest(jnp.asarray(unit(rows)), k))


@functools.partial(jax.jit, static_argnames="k")
def _nearest(rows: Float[Array, "U E"], k: int) -> Int[Array, "U k"]:
    def some(part):
        row, number = part
        cosine = jnp.matmul(row, rows.T, precision="highest")
        return jax.lax.top_k(cosine.at[jnp.arange(len(number)), number].set(-jnp.inf), k)[1]

    return map_blocks(some, (rows, jnp.arange(len(rows))), rows_that_fit(len(rows)))
