"""What makes each method itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pad_jax.losses.contrastive import club, gaussian_nll, info_nce
from pad_jax.methods import METHODS
from pad_jax.methods.base import forward
from pad_jax.methods.disco import disentanglement, sufficiency
from pad_jax.models.gate import Gate
from pad_jax.training import parameters
from pad_jax.training.step import merge
from tests.test_step import Setup, loss_of


@pytest.fixture
def setup(make_config, dataset, text):
    def make(method: str, recipe: str = "paper", **fields):
        return Setup(make_config(recipe, method=method, **fields), dataset, text)

    return make


def names(tree):
    return set(flatten_dict(tree, sep="/"))


def test_info_nce_agrees_with_the_oracle():
    i, j = np.arange(4)[:, None], np.arange(3)[None]
    with jax.enable_x64(True):
        source, target = jnp.asarray(np.sin(1 + i + 2 * j)), jnp.asarray(np.cos(1 + 2 * i + j) + 0.5)
        rows = jnp.ones(4, bool)
        oracle = {(True, 0.1): 9.588772870902, (False, 0.1): 8.715595088407, (True, 1.0): 1.752871114844}
        for (forwards, temperature), expected in oracle.items():
            views = (source, target) if forwards else (target, source)
            np.testing.assert_allclose(info_nce(*views, rows, temperature), expected, rtol=1e-9)
        wider = (jnp.concatenate([x, 9 * jnp.ones((2, 3))]) for x in (source, target))
        masked = info_nce(*wider, jnp.arange(6) < 4, 0.1)
        np.testing.assert_allclose(masked, oracle[True, 0.1], rtol=1e-9)


def test_club_and_likelihood_are_their_formulas():
    random = np.random.default_rng(0)
    mean, log_variance, y = random.normal(size=(3, 6, 5)).astype(np.float32)
    mask = np.array([1, 1, 0, 1, 1, 0], bool)
    rows, total, likelihood = np.flatnonzero(mask), 0.0, 0.0
    for i in rows:
        variance = np.exp(log_variance[i])
        others = np.mean([(y[j] - mean[i]) ** 2 for j in rows], axis=0)
        total += ((others - (y[i] - mean[i]) ** 2) / (2 * variance)).sum()
        likelihood += ((y[i] - mean[i]) ** 2 / (2 * variance) + np.log(variance) / 2).sum()
    arguments = [jnp.asarray(x) for x in (mean, log_variance, y, mask)]
    np.testing.assert_allclose(club(*arguments), total / len(rows), rtol=1e-5)
    np.testing.assert_allclose(gaussian_nll(*arguments), likelihood / len(rows), rtol=1e-5)


def test_morec_has_no_id_table(setup):
    s = setup("morec")
    _, state = s.state(s.method.phases[0])
    assert "tables" not in state.params
    assert set(state.params["encoders"]) == {"text"}


def test_hybrid_joins_a_table_and_a_text_tower_in_one_expert(setup):
    s = setup("hybrid")
    _, state = s.state(s.method.phases[0])
    assert set(state.params["tables"]) == set(state.params["towers"]) == set(state.params["encoders"]) == {"aligned"}
    assert "gate" not in state.params


def test_ctrl_drops_the_text_after_stage_one(setup):
    s = setup("ctrl")
    first, second = s.method.phases
    previous = s.previous(second)
    _, state = s.state(second, previous)
    assert names(state.params["tables"]) == {"id"}
    assert "towers" not in state.params
    np.testing.assert_array_equal(state.params["tables"]["id"], previous["tables"]["aligned"])

    optimizer, state = s.state(first)
    batch, _ = s.batch()
    after, metrics = first.step(optimizer, s.scorer(first), s.config, state, batch, s.data, None)
    assert set(metrics) == {"text", "id", "loss"}
    np.testing.assert_allclose(metrics["loss"], (metrics["text"] + metrics["id"]) / 2, rtol=1e-6)
    kept = {"encoders", "towers/aligned/cat"}
    assert names(state.frozen) == {n for n in names(state.frozen) if n.startswith(tuple(kept))}
    assert all(any(n.startswith(k) for n in names(state.frozen)) for k in kept)
    moved = np.asarray(after.params["tables"]["aligned"] != state.params["tables"]["aligned"]).any(axis=1)
    assert moved[np.unique(batch.items)[1:]].all()


def test_ctrl_contrasts_each_item_of_a_group_once(setup):
    """Stage 1 by hand: the distinct items of every four users, in both directions."""
    s = setup("ctrl", **{"model.dropout": 0.0})
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    batch, _ = s.batch()
    _, metrics = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, None)
    params = merge(state.params, state.frozen)
    ids, text = s.scorer(phase).item_vectors(params, jnp.arange(s.items + 1), s.data)["aligned"].parts
    expected = {"text": [], "id": []}
    windows = np.asarray(s.data.windows)[:16].reshape(4, -1)
    for group in windows:
        items = np.unique(group[group > 0])
        rows = jnp.ones(len(items), bool)
        expected["text"].append(info_nce(text[items], ids[items], rows, 0.1))
        expected["id"].append(info_nce(ids[items], text[items], rows, 0.1))
    for side, values in expected.items():
        np.testing.assert_allclose(metrics[side], np.mean(values), rtol=1e-4)


def test_make_fuses_with_one_number_between_zero_and_one(setup):
    s = setup("make")
    phase = s.method.phases[1]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    assert phase.experts == ("id", "text")
    for path, leaf in flatten_dict(previous["towers"], sep="/").items():
        np.testing.assert_array_equal(flatten_dict(state.params["towers"], sep="/")[path], leaf)
    assert names(state.params["gate"]) == {"scalar"}
    vectors = (jnp.ones((3, 16)), jnp.zeros((3, 16)))
    for numbers, expected in (((0.0, 0.0), 0.5), ((1.0, -1.0), 1 / (1 + np.exp(-2))), ((-50.0, 50.0), 0.0)):
        gate = {"params": {"scalar": jnp.asarray(numbers)}}
        weights = Gate(phase.experts, kind="scalar").apply(gate, vectors, jnp.array([0, 1, 10]))
        np.testing.assert_allclose(weights, [[expected, 1 - expected]] * 3, atol=1e-6)


@pytest.mark.parametrize("recipe", ["paper", "best"])
def test_smem_is_pad_with_phase_two_off(setup, recipe):
    """Its phase 3 starts from what PAD's would start from if phase 2 had not moved anything, and has the same loss."""
    pad, smem = setup("pad", recipe), setup("smem", recipe)
    pretrained = pad.previous(pad.method.phases[1])
    align, finetune = pad.method.phases[1:]
    fresh = align.fresh(pad.config, jax.random.key(0), pad.items, pad.data.text.shape[1])
    untouched = parameters.start(align, fresh, pretrained)
    _, expected = pad.state(finetune, untouched)
    phase = smem.method.phases[1]
    _, state = smem.state(phase, pretrained)
    assert phase.experts == finetune.experts
    own, theirs = (merge(x.params, x.frozen) for x in (state, expected))
    flat, other = (flatten_dict(x, sep="/") for x in (own, theirs))
    assert set(flat) == set(other)
    for path, leaf in flat.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)
    batch, _ = pad.batch()
    np.testing.assert_array_equal(loss_of(smem, phase, own, batch).value, loss_of(pad, finetune, theirs, batch).value)
    trained = {n.split("/")[1] for n in names(state.params) if n.startswith("encoders")}
    assert trained == ({"id", "aligned", "text"} if recipe == "paper" else {"aligned", "text"})


def test_disco_has_two_embeddings_of_every_item(setup):
    """Part 1 is of the first half of its ID rows, part 2 of the second, parts 3 and 4 are of the text alone."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)

    def reads(number):
        def part(table):
            params = {**state.params, "tables": {"disco": table}}
            return s.scorer(phase).item_vectors(params, jnp.arange(1, 4), s.data)["disco"].parts[number].sum()

        moved = np.asarray(jax.grad(part)(state.params["tables"]["disco"])[1:4]) != 0
        return moved[:, :16].all(), moved[:, :16].any(), moved[:, 16:].all(), moved[:, 16:].any()

    own, common, neither = (True, True, False, False), (False, False, True, True), (False,) * 4
    assert [reads(n) for n in range(4)] == [own, common, neither, neither]


def test_disco_losses_against_numpy(setup, dataset):
    """CLUB over groups of users and the discriminators over positions, by loops."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)
    assert state.params["tables"]["disco"].shape == (31, 32)
    batch, _ = s.batch()
    scorer, params = s.scorer(phase), state.params
    seen = forward(scorer, s.config, params, batch, s.data, None)
    parts = [np.asarray(p) for p in scorer.item_vectors(params, jnp.arange(31), s.data)["disco"].parts]
    assert len(parts) == 4

    def dense(layer, x):
        return x @ np.asarray(layer["kernel"]) + np.asarray(layer.get("bias", 0))

    def moments(q, x):
        mean, log_variance = (dense(q[n], np.maximum(dense(q[f"{n}_hidden"], x), 0)) for n in ("mean", "log_variance"))
        return mean, np.tanh(log_variance)

    bounds, likelihoods = [], []
    for group in np.asarray(s.data.windows)[:16].reshape(4, -1):
        items, bound, likelihood = group[group > 0], 0.0, 0.0
        for number, (x, y) in enumerate(((0, 3), (1, 2))):
            mean, log_variance = moments(params["critics"][f"gaussian_{number}"], parts[x][items])
            y = parts[y][items]
            every = (y[None] - mean[:, None]) ** 2
            own = (y - mean) ** 2
            bound += ((every.mean(axis=1) - own) / (2 * np.exp(log_variance))).sum(axis=1).mean()
            likelihood += (own / (2 * np.exp(log_variance)) + log_variance / 2).sum(axis=1).mean()
        bounds.append(bound)
        likelihoods.append(likelihood)
    information, likelihood = disentanglement(batch, params["critics"], seen)
    np.testing.assert_allclose(information.value, np.mean(bounds), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(likelihood.value, np.mean(likelihoods), rtol=1e-4)

    valid = np.asarray(batch.valid)
    state_of, target, drawn = (np.asarray(x)[valid] for x in (seen.users, batch.targets, batch.negatives))
    total = 0.0
    for number, part in enumerate(parts):
        weights = np.asarray(params["critics"][f"bilinear_{number}"]["Dense_0"]["kernel"])
        positive, negative = (np.einsum("td,de,te->t", state_of, weights, part[i]) for i in (target, drawn))
        total += (np.logaddexp(0, -positive) + np.logaddexp(0, negative)).mean() / 4
    np.testing.assert_allclose(sufficiency(s.config, batch, params["critics"], seen).value, total, rtol=1e-4)


def test_disco_fits_its_critics_and_its_parts_apart(setup):
    """CLUB does not move q, the likelihood does not move the parts."""
    s = setup("disco")
    phase = s.method.phases[0]
    _, state = s.state(phase)
    batch, _ = s.batch()

    def one(which, params):
        seen = forward(s.scorer(phase), s.config, params, batch, s.data, None)
        return disentanglement(batch, params["critics"], seen)[which].value

    information, likelihood = (jax.grad(lambda p, w=which: one(w, p))(state.params) for which in (0, 1))
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(information["critics"]))
    assert np.asarray(information["tables"]["disco"]).any()
    assert not np.asarray(likelihood["tables"]["disco"]).any()
    assert all(np.asarray(likelihood["critics"][f"gaussian_{n}"]["mean"]["kernel"]).any() for n in (0, 1))


def test_ablations_of_the_alignment(setup):
    """Not anchored: no recommendation loss, and what only that would reach is kept. Frozen IDs: kept."""
    s = setup("pad", **{"alignment.anchored": False})
    phase = s.method.phases[1]
    batch, _ = s.batch()
    assert phase.by_loss
    assert {"encoders/aligned", "towers/aligned/cat"} <= set(phase.keep)
    optimizer, state = s.state(phase, s.previous(phase))
    _, metrics = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, None)
    assert set(metrics) == {"mmd", "loss"}

    s = setup("pad", **{"alignment.freeze_ids": True})
    phase = s.method.phases[1]
    _, state = s.state(phase, s.previous(phase))
    assert "tables/aligned" in names(state.frozen)
    assert "towers/aligned/text/Dense_0/kernel" in names(state.params)

    s = setup("pad", **{"alignment.loss": "infonce"})
    phase = s.method.phases[1]
    optimizer, state = s.state(phase, s.previous(phase))
    _, metrics = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, None)
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


def test_every_method_reads_text_but_sasrec(make_config):
    assert {name for name in METHODS if not METHODS[name](make_config()).reads_text} == {"sasrec"}


def test_epochs_and_minutes_of_every_method_add_up_to_those_of_pad(make_config):
    fields = {"pretrain.minutes": 10.0, "align.minutes": 20.0, "finetune.minutes": 40.0}
    config = make_config(**{"pretrain.epochs": 3, "align.epochs": 5, "finetune.epochs": 7, **fields})
    for name, method in METHODS.items():
        assert sum(phase.limits(config).minutes for phase in method(config).phases) == 70, name
        assert sum(phase.limits(config).epochs for phase in method(config).phases) == 15, name


def test_recommenders_that_start_from_nothing_have_the_rate_of_phase_one(make_config):
    config = make_config("paper")
    assert config.finetune.learning_rate < config.pretrain.learning_rate
    for name in ("sasrec", "hybrid", "morec", "disco", "ctrl"):
        phase = METHODS[name](config).phases[-1]
        assert phase.limits(config).learning_rate == config.pretrain.learning_rate, name


def test_make_learns_its_number_at_the_common_rate(setup):
    """AdamW's first step is one learning rate long, whatever `train.gate_rate` says of the frequency gate."""
    s = setup("make", "best")
    phase = s.method.phases[1]
    optimizer, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()
    after, _ = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, None)
    np.testing.assert_allclose(np.abs(after.params["gate"]["scalar"]), 1e-3, rtol=1e-3)
    pad = setup("pad", "best")
    phase = pad.method.phases[2]
    optimizer, state = pad.state(phase, pad.previous(phase))
    after, _ = phase.step(optimizer, pad.scorer(phase), pad.config, state, batch, pad.data, None)
    moved = np.abs(after.params["gate"]["id_bucket"] - state.params["gate"]["id_bucket"])
    np.testing.assert_allclose(moved.max(), 0.03 * 1e-3, rtol=0.1)  # decay included
