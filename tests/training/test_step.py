"""The training steps: what moves, what does not, and that devices do not matter."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pad_jax import parallel
from pad_jax.training.loop import block_of_steps
from pad_jax.training.step import gradient_norms, merge
from tests.support.devices import needs
from tests.support.steps import ROWS, assert_equal, leaves

# (phase, recipe, overrides)
CASES = {
    "pretrain-paper": ("pretrain", "paper", {}),
    "align-paper": ("align", "paper", {}),
    "finetune-paper": ("finetune", "paper", {}),
    "align-official": ("align", "official", {}),
    "pretrain-sampled": ("pretrain", "paper", {"loss": "sampled_softmax"}),
    "align-best": ("align", "best", {}),
    "finetune-best": ("finetune", "best", {}),
    "finetune-staged": ("finetune", "best", {"method": "staged"}),
    "align-drawn": ("align", "best", {"mmd.drawn": 3}),
    "make-pretrain": ("pretrain", "best", {"method": "make"}),
    "align-gru4rec": ("align", "paper", {"backbone": "gru4rec"}),
    "pretrain-caser": ("pretrain", "best", {"backbone": "caser"}),
    "pretrain-lazy": ("pretrain", "paper", {"optimizer.tables": "lazy"}),
    "finetune-bfloat16": ("finetune", "paper", {"model.dtype": "bfloat16"}),
    "align-infonce": ("align", "best", {"alignment.loss": "infonce"}),
    "align-alone": ("align", "paper", {"alignment.anchored": False}),
    "ctrl-align": ("align", "paper", {"method": "ctrl"}),
    "make-finetune": ("finetune", "best", {"method": "make"}),
    "disco-pretrain": ("pretrain", "paper", {"method": "disco"}),
    "disco-best": ("pretrain", "best", {"method": "disco", "loss": "sampled_softmax"}),
    "llmesr-pretrain": ("pretrain", "best", {"method": "llmesr"}),
    "smem-finetune": ("finetune", "best", {"method": "smem"}),
    "finetune-lazy": ("finetune", "paper", {"optimizer.tables": "lazy", "loss": "sampled_softmax"}),
}

QUICK = ["pretrain-paper", "align-best", "finetune-staged", "disco-pretrain"]
ON_DEVICES = ["align-paper", "align-official", "pretrain-sampled", "finetune-best", "finetune-staged", "finetune-lazy"]
ON_DEVICES += ["align-drawn", "ctrl-align", "disco-best", "llmesr-pretrain"]


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_trained_leaf_moves_and_no_frozen_one(setup, case):
    """By its gradient: there is no weight decay here, which would move a leaf that nothing depends on."""
    name, recipe, overrides = CASES[case]
    s = setup(recipe, **overrides | {"train.weight_decay": 0.0, "train.gate_weight_decay": 0.0})
    phase = s.phase(name)
    optimizer, state = s.state(phase, s.previous(phase))
    before = jax.tree.map(np.array, (state.params, state.frozen))
    batch, _ = s.batch()
    step = s.stepper(phase, optimizer)
    after = state
    for number in range(3):  # a layer behind one that starts at zero moves from the second step on
        after, metrics = step(after, batch, jax.random.key(number))
    assert all(np.isfinite(v) for v in metrics.values())
    for path, leaf in leaves(after.params).items():
        assert (np.asarray(leaf) != leaves(before[0])[path]).any(), path
    assert_equal(after.frozen, before[1])


def run_on(devices, s, phase, state, optimizer, steps=2, rows=None):
    """`steps` steps of the mapped block on the first `devices` devices."""
    needs(devices)
    rows = np.stack([ROWS, (ROWS + 21) % 37]).astype(np.int32) if rows is None else rows
    packed, caps = s.packed(rows, devices)
    block = block_of_steps(phase, s.scorer(phase), s.config, optimizer)
    mapped = parallel.over_devices(block, jax.devices()[:devices])
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)  # the mapped block donates its state
    split = jax.tree.map(lambda x: x.reshape(len(x), devices, -1).swapaxes(0, 1), packed)
    return mapped(state, s.data, jnp.int32(steps), jax.random.key(2), split, caps)


@pytest.mark.slow
@pytest.mark.parametrize("case", ON_DEVICES)
def test_steps_do_not_depend_on_the_number_of_devices(setup, case):
    name, recipe, overrides = CASES[case]
    s = setup(recipe, **overrides)
    phase = s.phase(name)
    optimizer, state = s.state(phase, s.previous(phase))
    rows = np.stack([ROWS, np.where(ROWS < 5, ROWS + 30, -1)]).astype(np.int32)  # the last batch is short
    results = {n: run_on(n, s, phase, state, optimizer, rows=rows) for n in (1, 2, 4)}
    one, metrics = results[1]
    for devices in (2, 4):
        other, others = results[devices]
        for metric, value in metrics.items():
            np.testing.assert_allclose(others[metric], value, rtol=2e-4, err_msg=metric)
        for path, leaf in leaves(other.params).items():
            moved = 2 * s.config.pretrain.learning_rate
            np.testing.assert_allclose(leaf, leaves(one.params)[path], atol=max(0.02 * moved, 2e-6), err_msg=path)
            replicas = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert len(replicas) == devices
            assert all(np.array_equal(replicas[0], replica) for replica in replicas), path


def test_empty_steps_are_not_taken(setup):
    s = setup()
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    after, _ = run_on(2, s, phase, state, optimizer, steps=1)
    assert int(after.step) == 1


@pytest.mark.slow
def test_gradient_norms_of_the_parts_of_a_loss(setup):
    """Each is that of its part alone, weight included; together they are the gradient of the step."""
    s = setup("best", **{"mmd.weight": 3.0, "model.dropout": 0.0})
    phase = s.phase("align")
    _, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()
    key = jax.random.key(0)

    @jax.jit
    def norms(state, batch, data):
        inputs = s.scorer(phase), s.config, state, batch, data, key
        return jax.vmap(lambda _: gradient_norms(phase.loss, *inputs, "x"), axis_name="x")(jnp.zeros(1))

    found = norms(state, batch, s.data)

    def value(params, weights):
        parts = phase.loss(s.scorer(phase), s.config, merge(params, state.frozen), batch, s.data, key)
        assert set(parts) == {"rec", "mmd"}
        return sum(weights[name] * mean.value for name, (_, mean) in parts.items())

    gradient = jax.jit(jax.grad(value))
    for weights in ({"rec": 1.0, "mmd": 0.0}, {"rec": 0.0, "mmd": 3.0}):
        norm = optax.tree.norm(gradient(state.params, weights))
        name = max(weights, key=lambda n: weights[n])
        np.testing.assert_allclose(found[name][0], norm, rtol=1e-5)
