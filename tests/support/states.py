"""Histories as a grid in, states of a backbone as a grid out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.data import laid_out

LENGTH, WIDTH = 6, 8


def encode(backbone, params, grid, mask, spare=0, key=None, first_row=0):
    """Histories as a grid in, states as a grid out."""
    return _encode(backbone, params, jnp.asarray(grid), laid_out(mask, first_row, spare), key)


@functools.partial(jax.jit, static_argnums=0)
def _encode(backbone, params, grid, layout, key):
    rngs = {} if key is None else {"dropout": key}
    return layout.grid.to_grid(backbone.apply(params, layout.grid.to_tokens(grid), layout, key is not None, rngs=rngs))


def start(backbone, mask, noise=0.3):
    """Parameters of which none is zero."""
    return _start(backbone, laid_out(mask), noise)


@functools.partial(jax.jit, static_argnums=0)
def _start(backbone, layout, noise):
    params = backbone.init(jax.random.key(0), jnp.zeros((len(layout.grid.cell), WIDTH)), layout, False)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten([x + noise * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)])


def drawn(shapes, deviation=0.3):
    """Parameters of these shapes, of which none is zero, without the program that would draw them."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(deviation * random.normal(size=x.shape), x.dtype), shapes)
