"""A method on the tiny dataset, phase by phase, without the loop around its steps."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from pad_jax.batching.batch import make_batch, packer
from pad_jax.batching.device import device_data
from pad_jax.methods.base import forward, fused_loss
from pad_jax.methods.registry import method_of
from pad_jax.models.experts import EXPERTS
from pad_jax.training import parameters
from pad_jax.training.optimizer import adamw
from pad_jax.training.step import TrainState, train_step
from tests.support import states

ROWS = np.arange(16, dtype=np.int32)
#: Fresh parameters by what they depend on: many tests start from the same.
_FRESH: dict = {}


class Setup:
    """Phases, states and batches of a configuration."""

    def __init__(self, config, dataset, text):
        self.config, self.method = config, method_of(config)
        width = 16 if config.model.text_tower == "residual" else 12
        table = np.pad(text, ((0, 0), (0, width - 12)))
        self.items = dataset.items
        arrays = {name: EXPERTS[name].arrays(config, dataset, table) for name in self.method.experts}
        arrays = {name: own for name, own in arrays.items() if own}
        self.host = device_data(dataset, config.data, table)._replace(arrays=arrays)
        self.data = jax.tree.map(jnp.asarray, self.host)

    def phase(self, name):
        return next(p for p in self.method.phases if p.name == name)

    def scorer(self, phase):
        return phase.scorer(self.config)

    def optimizer(self, phase):
        return adamw(self.config, phase.limits(self.config))

    def fresh(self, phase, seed=0):
        """Parameters as they are drawn, by one program and not by one for every operation."""
        c, width = self.config, self.data.text.shape[1]
        key = (seed, self.items, width, phase.experts, phase.gate or c.gate.kind, phase.critics, *phase.fill)
        key += (c.backbone, c.model, c.sasrec, c.gru4rec, c.caser, c.gate, c.data, c.codes, c.whitenrec, c.llmesr)
        if key not in _FRESH:
            _FRESH[key] = jax.jit(lambda k: phase.fresh(c, k, self.items, width))(jax.random.key(seed))
        return _FRESH[key]

    def started(self, phase, previous=None, seed=0):
        """Parameters that a phase starts with after `previous`."""
        return parameters.start(phase, self.config, self.fresh(phase, seed), previous, self.data)

    def state(self, phase, previous=None, seed=0):
        """The optimizer of a phase, and what it starts with after `previous`."""
        params, frozen = parameters.split(self.started(phase, previous, seed), phase.keep)
        optimizer = self.optimizer(phase)
        return optimizer, TrainState(params, frozen, optimizer.init(params), jnp.int32(0))

    def previous(self, phase):
        """Parameters as the phase before would leave them, without training."""
        previous = None
        for before in self.method.phases[: self.method.phases.index(phase)]:
            previous = self.started(before, previous, seed=7)
        return previous

    def packed(self, rows, devices):
        windows = np.asarray(self.data.windows)
        return packer(windows, devices, self.config.mmd.group, self.config.mmd.include_padding)(rows)

    def batch(self, rows=ROWS):
        packed, caps = self.packed(rows[None], 1)
        packed = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        return batch_of(self.data, packed, jax.random.key(5), caps), caps

    def stepper(self, phase, optimizer):
        """A function that takes a step of a phase: (state, batch, key) -> state, metrics."""
        scorer = self.scorer(phase)

        @jax.jit
        def step(state, batch, data, key):
            return train_step(phase.loss, optimizer, scorer, self.config, state, batch, data, key)

        return lambda state, batch, key=None: step(state, batch, self.data, key)

    def step(self, phase, optimizer, state, batch, key=None):
        """One step of a phase."""
        return self.stepper(phase, optimizer)(state, batch, key)

    def loss(self, phase, params, batch):
        """The fused loss of a phase without dropout, whatever else its own loss has."""
        return jax.jit(self._loss(phase))(params, batch, self.data)

    def loss_and_gradients(self, phase, params, batch):
        """`loss`, and its gradients in the parameters."""
        return jax.jit(jax.value_and_grad(self._loss(phase)))(params, batch, self.data)

    def _loss(self, phase):
        scorer = self.scorer(phase)

        def loss(params, batch, data):
            seen = forward(scorer, self.config, params, batch, data, None)
            return fused_loss(scorer, self.config, params, batch, seen).value

        return loss


def drawn(setup, phase):
    """Parameters of a phase of which none is zero, without the program that draws `fresh` ones."""
    width = setup.data.text.shape[1]
    return states.drawn(jax.eval_shape(lambda k: phase.fresh(setup.config, k, setup.items, width), jax.random.key(0)))


def batch_of(data, packed, key, caps):
    """A batch on one device."""
    return _made(data, packed, jnp.int32(0), key, caps)


_made = jax.jit(make_batch, static_argnames="caps")


def leaves(tree: Mapping) -> dict:
    """Leaves by their paths."""
    return flatten_dict(tree, sep="/")


def names(tree: Mapping) -> set[str]:
    """Paths of the leaves."""
    return set(leaves(tree))


def assert_equal(tree: Mapping, other: Mapping) -> None:
    """Every leaf of the first is that of the second, bit for bit."""
    for path, leaf in leaves(tree).items():
        np.testing.assert_array_equal(leaf, leaves(other)[path], err_msg=path)
