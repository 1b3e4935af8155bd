"""Tables whose rows are updated lazily."""

import functools

import jax
import numpy as np
import pytest

from pad_jax.methods.base import forward, fused_loss
from pad_jax.training.step import train_step
from tests.support.steps import leaves


def test_lazy_tables_are_adamw_on_the_rows_of_the_batch(setup):
    """Two steps on one batch: its rows move as under AdamW, which is given the same batch; others stay, moments too."""
    lazy, dense = (setup(optimizer__tables=tables) for tables in ("lazy", "dense"))
    phase = lazy.method.phases[0]
    batch, _ = lazy.batch(np.array([5, -1, -1, -1], np.int32))
    touched = np.unique(np.concatenate([batch.event_item, batch.negatives]))
    untouched = np.setdiff1d(np.arange(lazy.items + 1), touched)
    assert len(untouched)
    after = {}
    for name, s in (("lazy", lazy), ("dense", dense)):
        optimizer, state = s.state(phase)
        before = np.array(state.params["tables"]["id"])
        step = s.stepper(phase, optimizer)
        for _ in range(2):
            state, _ = step(state, batch)
        after[name] = state
    table = np.asarray(after["lazy"].params["tables"]["id"])
    np.testing.assert_allclose(table[touched], after["dense"].params["tables"]["id"][touched], rtol=1e-4, atol=1e-6)
    assert (table[touched[1:]] != before[touched[1:]]).any(axis=1).all()
    np.testing.assert_array_equal(table[untouched], before[untouched])
    assert not np.asarray(after["lazy"].opt_state["tables"]["id"].square)[untouched].any()
    for path, leaf in leaves(after["lazy"].params["encoders"]).items():
        other = leaves(after["dense"].params["encoders"])[path]
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "sampled_softmax"])
def test_lazy_tables_know_the_rows_of_a_loss_with_keys_of_its_own(setup, loss):
    """A loss may split its key or go forward twice: the drawn items belong to the batch."""

    def twice(scorer, config, params, batch, data, key):
        first, second = jax.random.split(key)
        parts = {}
        for name, part_key in (("first", first), ("second", second)):
            seen = forward(scorer, config, params, batch, data, part_key)
            parts[name] = (0.5, fused_loss(scorer, config, params, batch, seen))
        return parts

    tables = {}
    for kind in ("lazy", "dense"):
        s = setup("paper", loss=loss, **{"optimizer.tables": kind, "train.weight_decay": 0.0, "model.dropout": 0.0})
        phase = s.method.phases[0]
        optimizer, state = s.state(phase)
        batch, _ = s.batch()
        step = jax.jit(functools.partial(train_step, twice, optimizer, s.scorer(phase), s.config))
        after, _ = step(state, batch, s.data, jax.random.key(0))
        tables[kind] = np.asarray(after.params["tables"]["id"])
    np.testing.assert_allclose(tables["lazy"], tables["dense"], rtol=1e-5, atol=1e-6)
