"""PAD and its ablations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.losses.mmd import mk_mmd
from pad_jax.methods.base import forward
from pad_jax.methods.pad import alignment, drawn_items
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
    assert not state.frozen
    assert any(n.startswith("gate") for n in both) == (len(use) > 1)


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
def test_drawn_items_are_part_of_every_sample(setup):
    """The MMD of each group against one of its events and its drawn items, which are other ones in each group."""
    s = setup("pad", "best", **{"mmd.drawn": 5})
    phase = s.method.phases[1]
    params = s.started(phase, s.previous(phase))
    params["tables"]["aligned"] *= 30.0
    batch, _ = s.batch()
    seen = forward(s.scorer(phase), s.config, params, batch, s.data, None)
    ids, text = (np.asarray(part) for part in seen.items["aligned"].parts)
    rows = np.asarray(drawn_items(batch, 4, 5, 30))
    assert rows.shape == (4, 5)
    assert ((rows >= 1) & (rows <= 30)).all()
    assert len({tuple(row) for row in rows}) == 4
    expected = []
    for group, drawn in zip(np.asarray(s.data.windows)[:16].reshape(4, -1), rows, strict=True):
        items = np.concatenate([group[group > 0], drawn])
        expected.append(float(mk_mmd(jnp.asarray(text[items]), jnp.asarray(ids[items]))))
    np.testing.assert_allclose(alignment(s.config, batch, seen).value, np.mean(expected), rtol=1e-4)


def test_drawn_items_need_a_loss_over_all(make_config):
    with pytest.raises(UserError, match=r"mmd.drawn=5 needs a loss over all items, as ce is: bce draws some itself"):
        make_config("paper", **{"mmd.drawn": 5})


@pytest.mark.slow
def test_the_padding_row_has_no_gradient_of_the_official_recipe(setup):
    """torch's `padding_idx`: with `mmd.include_padding` row 0 takes part and does not move."""
    s = setup("pad", "official")
    phase = s.method.phases[1]
    params = s.started(phase, s.previous(phase))
    batch, _ = s.batch()

    def mmd(table):
        moved = params | {"tables": params["tables"] | {"aligned": table}}
        return alignment(s.config, batch, forward(s.scorer(phase), s.config, moved, batch, s.data, None)).value

    gradient = np.asarray(jax.grad(mmd)(params["tables"]["aligned"]))
    assert not gradient[0].any()
    assert gradient[1:].any()
