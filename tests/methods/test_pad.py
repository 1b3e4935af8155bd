"""PAD and its ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.steps import assert_equal, leaves, names


def test_ablations_of_the_alignment(setup):
    """Not anchored: no recommendation loss, and what only that would reach is kept. Frozen IDs: kept."""
    s = setup("pad", **{"alignment.anchored": False})
    phase = s.method.phases[1]
    batch, _ = s.batch()
    assert phase.by_loss
    assert {"encoders/aligned", "towers/aligned/cat"} <= set(phase.keep)
    optimizer, state = s.state(phase, s.previous(phase))
    _, metrics = s.step(phase, optimizer, state, batch)
    assert set(metrics) == {"mmd", "loss"}

    s = setup("pad", **{"alignment.freeze_ids": True})
    phase = s.method.phases[1]
    _, state = s.state(phase, s.previous(phase))
    assert "tables/aligned" in names(state.frozen)
    assert "towers/aligned/text/Dense_0/kernel" in names(state.params)

    s = setup("pad", **{"alignment.loss": "infonce"})
    phase = s.method.phases[1]
    optimizer, state = s.state(phase, s.previous(phase))
    _, metrics = s.step(phase, optimizer, state, batch)
    assert set(metrics) == {"rec", "infonce", "loss"}
    np.testing.assert_allclose(metrics["loss"], metrics["rec"] + 0.01 * metrics["infonce"], rtol=1e-6)


@pytest.mark.parametrize(
    "use", [("id",), ("aligned",), ("text",), ("id", "text"), ("aligned", "text"), ("id", "aligned")]
)
@pytest.mark.parametrize("recipe", ["paper", "best"])
def test_experts_left_out_of_phase_three(setup, use, recipe):
    s = setup("pad", recipe, **{"experts.use": use})
    phase = s.method.phases[2]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    both = names(state.params) | names(state.frozen)
    assert {n.split("/")[1] for n in both if n.startswith("encoders")} == set(use)
    assert state.params  # something is trained
    assert any(n.startswith("gate") for n in both) == (len(use) > 1)
    if recipe == "best" and len(use) > 1:
        assert {n.split("/")[1] for n in names(state.params) if n.startswith("encoders")} == set(use) & {"text"}


def test_align_keeps_the_pre_trained_expert_out_of_the_optimizer(setup):
    s = setup("pad")
    phase = s.method.phases[1]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    assert set(leaves(state.frozen)) >= {"tables/id"}
    assert all(p.startswith(("tables/id", "encoders/id")) for p in leaves(state.frozen))
    frozen = {leaf.shape for leaf in jax.tree.leaves(state.frozen["tables"])}
    assert frozen == {(31, 16)}
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * trained
    np.testing.assert_array_equal(state.params["tables"]["aligned"], previous["tables"]["id"])
    assert_equal(state.params["encoders"]["aligned"], previous["encoders"]["id"])


def test_finetune_starts_where_align_ended(setup):
    s = setup("pad")
    phase = s.method.phases[2]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    for path, leaf in leaves(previous).items():
        np.testing.assert_array_equal(leaves(state.params)[path], leaf, err_msg=path)
    assert set(state.params["encoders"]) == {"id", "aligned", "text"}
    assert state.frozen == {}


@pytest.mark.slow
def test_padding_pairs_fill_the_groups_of_the_official_recipe(setup):
    """With `mmd.include_padding` every group has batch * 2 * (L + 1) rows; without, only its events."""
    values = {}
    for padding in (False, True):
        s = setup("pad", mmd__include_padding=padding)
        phase = s.method.phases[1]
        optimizer, state = s.state(phase, s.previous(phase))
        batch, caps = s.batch()
        assert (caps.group_tokens == 4 * 9) == padding
        _, metrics = s.step(phase, optimizer, state, batch, jax.random.key(0))
        values[padding] = float(metrics["mmd"])
    assert values[False] != values[True]


@pytest.mark.slow
def test_loss_of_an_expert_alone_when_the_gate_says_so(setup):
    """With the other gates at -inf, PAD scores like its ID expert."""
    s = setup("pad", **{"gate.kind": "bucket"})
    phase = s.method.phases[2]
    _, state = s.state(phase, s.previous(phase))
    params = jax.tree.map(lambda x: x, state.params)
    params["gate"] = params["gate"] | {f"{e}_bucket": jnp.full(11, -1e9) for e in ("aligned", "text")}
    batch, _ = s.batch()
    fused = s.loss(phase, params, batch)
    alone = s.loss(s.method.phases[0], params, batch)
    np.testing.assert_allclose(fused, alone, rtol=1e-6)


@pytest.mark.slow
def test_ids_alone_are_trained_without_the_adjustment(setup):
    """Phase 1, and the ID expert's own loss in phase 3, are the same functions with it as without."""
    values = {}
    for tau in (0.0, 0.5):
        s = setup("pad", "best", **{"train.adjustment": tau, "experts.freeze_carried": False})
        first, _, last = s.method.phases
        _, state = s.state(first)
        batch, _ = s.batch()
        values[tau, "pretrain"] = float(s.loss(first, state.params, batch))
        _, state = s.state(last, s.previous(last))
        _, metrics = s.step(last, s.optimizer(last), state, batch)
        values |= {(tau, name): float(metrics[name]) for name in ("id", "text", "gate")}
    assert values[0.5, "pretrain"] == values[0.0, "pretrain"]
    assert values[0.5, "id"] == values[0.0, "id"]
    assert all(values[0.5, name] != values[0.0, name] for name in ("text", "gate"))
