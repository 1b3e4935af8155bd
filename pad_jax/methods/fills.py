"""First values of parameters that come from the items' text: what `Phase.fill` names."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pad_jax import parallel
from pad_jax.batching.device import DeviceData
from pad_jax.models.experts import fresh_rows
from pad_jax.settings import Config
from pad_jax.text.transform import whiten


def item_text(data: DeviceData) -> Float[np.ndarray, "N E"]:
    """The text of the items as training reads it, on the host."""
    return parallel.on_host(data.text)[1:].astype(np.float32)


def text_start(config: Config, data: DeviceData, shape: tuple[int, ...]) -> Float[np.ndarray, "I X"]:
    """ID rows [N+1, X] that start as text: as training reads it where it is X wide, else its leading X principal
    directions, zeros behind those that it has; row 0 zeros.

    All are multiplied by one number that gives them the mean length of fresh ID rows: angles and relative lengths stay
    the text's, while learning rate, decay and encoder were chosen for rows of that length.
    """
    rows = item_text(data)
    if rows.shape[1] != shape[1]:
        principal = whiten(rows, 0.0, shape[1]).arrays
        rows = (rows - principal["mean"]) @ principal["matrix"]
        rows = np.pad(rows, ((0, 0), (0, shape[1] - rows.shape[1])))
    fresh = fresh_rows(config, jax.random.key(config.seed), shape)[1:]
    usual = float(jnp.linalg.norm(fresh, axis=1).mean())
    return np.pad(rows * (usual / (np.linalg.norm(rows, axis=1).mean() or 1)), ((1, 0), (0, 0))).astype(np.float32)


def text_mean(config: Config, data: DeviceData, shape: tuple[int, ...]) -> Float[np.ndarray, " E"]:
    """Of all items' text."""
    return item_text(data).mean(axis=0, dtype=np.float64)


def whitened_directions(config: Config, data: DeviceData, shape: tuple[int, ...]) -> Float[np.ndarray, "E X"]:
    """PCA whitening: the X leading principal directions over their standard deviations, zeros beyond the text's
    numerical rank."""
    matrix = whiten(item_text(data), 1.0, shape[1]).arrays["matrix"]
    return np.pad(matrix, ((0, 0), (0, shape[1] - matrix.shape[1])))


def zca(rows: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "E E"]:
    """Covariance^(-1/2): of all whitenings the one that turns nothing. What is beyond the numerical rank becomes 0."""
    root = whiten(rows, 0.5).arrays["matrix"]
    return root @ root.T


def whitened(config: Config, data: DeviceData, shape: tuple[int, ...]) -> Float[np.ndarray, "E E"]:
    """ZCA of all dimensions."""
    return zca(item_text(data))


def whitened_in_groups(
    config: Config, data: DeviceData, shape: tuple[int, ...], groups: int
) -> Float[np.ndarray, "E E"]:
    """ZCA within each of `groups` runs of neighbouring dimensions, which stay correlated with the others."""
    rows, matrix = item_text(data), np.zeros(shape)
    for group in np.array_split(np.arange(shape[0]), groups):
        matrix[np.ix_(group, group)] = zca(rows[:, group])
    return matrix
