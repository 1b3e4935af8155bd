"""Blend: the experts that nothing trains, the shares of all, and what they learn from."""

import json
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pad_jax
from benchmarks import blend_bounds
from pad_jax.data.dataset import ItemLists
from pad_jax.errors import UserError
from pad_jax.evaluation.baselines import DECAY, scores_of
from pad_jax.evaluation.ranking import rank_by_counting, ranker
from pad_jax.methods.blend import BlendGate
from pad_jax.models.experts import EXPERTS, Expert, profile
from pad_jax.models.scorer import vectors_of
from pad_jax.models.towers import unit
from pad_jax.pipeline import Run
from pad_jax.run import run
from pad_jax.settings import with_fields
from pad_jax.workdir.results import read_ranks, read_results
from tests.support.data import laid_out, small_config, tiny_dataset, write_table
from tests.support.registries import as_demo
from tests.support.steps import Setup, names

WORDS = ["black", "green", "tea", "coffee", "dark", "light", "organic", "roast", "bags", "tin"]


@pytest.fixture(scope="module")
def titled():
    """The tiny dataset with titles that have words in common; items 4 and 9 have none."""
    random = np.random.default_rng(3)
    titles = [" ".join(random.choice(WORDS, 4, replace=False)) for _ in range(30)]
    titles[3], titles[8] = "", "unheard"
    return replace(tiny_dataset(), titles=titles)


@pytest.fixture
def setup(titled, text):
    def make(**fields):
        fields = {"train.adjustment": 0.0, "blend.words": 24, "blend.followers": 30} | fields
        return Setup(small_config("best", method="blend", **fields), titled, text)

    return make


def experts_alone(s, titled):
    """Scores [16, 31] of each expert after the last of the first 16 training windows' inputs, and these inputs."""
    phase = s.method.phases[1]
    params = s.started(phase, s.previous(phase))
    batch, _ = s.batch()
    items = s.scorer(phase).item_vectors(params, jnp.arange(31), s.data)
    history = jax.tree.map(lambda x: batch.inputs_of(x[batch.event_item]), vectors_of(items))
    met = batch.inputs_of(s.data.counts[batch.event_item])
    users = jax.tree.map(batch.layout.last, s.scorer(phase).users(params, history, batch.layout, met))
    found = {
        "followers": EXPERTS["followers"].score(users["followers"], items["followers"].vector, 31),
        "words": users["words"] @ items["words"].vector.T,
        "learned": users["learned"] @ items["learned"].vector.T,
    }
    return params, {name: np.asarray(x) for name, x in found.items()}, np.asarray(s.data.windows)[:16, :-1]


def test_followers_are_a_mean_of_the_baseline_over_the_profile(setup, titled):
    """With room for all: of `counts` after each event alone; each weighs `DECAY` times as much as the next."""
    s = setup(**{"blend.whitening": 0.0})
    _, found, inputs = experts_alone(s, titled)
    counts = scores_of(titled, None)["counts"]
    for user, history in enumerate(inputs):
        history = history[history > 0]
        weight = DECAY ** np.arange(len(history))[::-1]
        after = counts(history[:, None])
        expected = sum(w * after(event) for event, w in enumerate(weight)) / weight.sum()
        np.testing.assert_allclose(found["followers"][user], expected, rtol=1e-5, atol=1e-7)
    assert (found["followers"] > 0).any()
    rows = np.asarray(EXPERTS["words"].look_up(None, jnp.arange(31), s.data.arrays["words"]))
    assert not rows[[0, 4, 9]].any()
    length = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(np.delete(length, [0, 4, 9]), 1, rtol=1e-5)


def test_words_are_the_decayed_profile(setup, titled):
    s = setup()
    _, found, inputs = experts_alone(s, titled)
    rows = np.asarray(s.data.arrays["words"]["rows"])
    weight = DECAY ** np.arange(inputs.shape[1])[::-1] * (inputs > 0)
    users = np.asarray(unit(jnp.asarray((weight[:, :, None] * rows[inputs]).sum(axis=1), jnp.float32)))
    np.testing.assert_allclose(found["words"], users @ rows.T, atol=1e-5)


def test_the_largest_counts_are_kept(setup, titled):
    every, three = (setup(**{"blend.followers": m}).data.arrays["followers"] for m in (30, 3))
    np.testing.assert_array_equal(three["value"], np.asarray(every["value"])[:, :3])
    assert (np.diff(every["value"], axis=1) <= 0).all()
    with pytest.raises(UserError, match="the expert followers scores the whole catalogue alone"):
        EXPERTS["followers"].score({}, {"item": jnp.ones((5, 3), int)}, 31)


def test_a_profile_is_a_weighted_mean():
    mask = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]], bool)
    grid = np.random.default_rng(0).normal(size=(*mask.shape, 4)).astype(np.float32) * mask[:, :, None]
    layout = laid_out(mask)
    found = np.asarray(layout.grid.to_grid(profile(layout.grid.to_tokens(jnp.asarray(grid)), layout, 0.7)))
    for row in range(3):
        for slot in np.nonzero(mask[row])[0]:
            weight = 0.7 ** np.arange(slot + 1)[::-1] * mask[row, : slot + 1]
            expected = weight @ grid[row, : slot + 1] / weight.sum()
            np.testing.assert_allclose(found[row, slot], expected, rtol=1e-5, atol=1e-6)


def test_corrections_are_bounded_and_shrunk(setup, titled):
    """c / (c + k) of a correction of length 1 at most; none for what training never met."""
    s = setup(**{"blend.shrink": 2.0})
    table = jnp.full((31, 16), 5.0)
    rows = EXPERTS["learned"].bounded(s.config, table)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    used = EXPERTS["learned"].look_up(rows, jnp.arange(31), s.data.arrays["learned"])
    counts = titled.counts.astype(float)
    np.testing.assert_allclose(np.linalg.norm(used, axis=1), counts / (counts + 2), rtol=1e-5)


@pytest.mark.slow
def test_the_loss_is_ndcg_with_a_soft_rank(setup, titled):
    """Against loops over the last event of each window; nothing but the gate and its sharpness moves."""
    s = setup(**{"blend.rare": 0.8})
    phase = s.method.phases[1]
    params, found, inputs = experts_alone(s, titled)
    batch, _ = s.batch()
    slopes = jnp.asarray([0.4, -0.5, -0.1])
    shares = jnp.log(jnp.asarray([0.2, 0.5, 0.3]))
    params["gate"] = {"sharpness": jnp.log(7.0), "shares": shares, "slopes": slopes}
    met = (1 + titled.counts[inputs[:, -1:]]) / 21
    assert len(np.unique(met)) > 3
    weights = [w * met**slope for w, slope in zip((0.2, 0.5, 0.3), np.asarray(slopes), strict=True)]
    total = 7 * sum(w * found[name] for w, name in zip(weights, phase.experts, strict=True))
    total = total * (1 + 0.8 / (1 + titled.counts))
    targets = np.asarray(s.data.windows)[:16, -1]
    losses = []
    for scores, target, history in zip(total, targets, inputs, strict=True):
        if target in history:
            continue
        others = np.setdiff1d(np.arange(1, 31), [*history, target])
        rank = 1 + (1 / (1 + np.exp(scores[target] - scores[others]))).sum()
        losses.append(1 - 1 / np.log2(1 + rank))
    assert 0 < len(losses) < 16
    scorer = s.scorer(phase)

    def value(params):
        return phase.loss(scorer, s.config, params, batch, s.data, None)["ndcg"][1].value

    np.testing.assert_allclose(value(params), np.mean(losses), rtol=1e-4)
    gradient = jax.grad(value)(params)
    moved = {name for name in names(gradient) if np.asarray(_at(gradient, name)).any()}
    assert moved == {"gate/shares", "gate/slopes", "gate/sharpness"}


@pytest.mark.slow
def test_ranks_are_of_scores_that_know_the_newest_item_and_rare_ones(setup, titled):
    """Of the scores of the experts alone, added by hand."""
    s = setup(**{"blend.rare": 12.0})
    phase = s.method.phases[1]
    params, found, inputs = experts_alone(s, titled)
    slopes, shares = np.float32([1.5, -1.5, -0.5]), np.float32([0.2, 0.5, 0.3])
    params["gate"] = {"sharpness": jnp.log(7.0), "shares": jnp.log(shares), "slopes": jnp.asarray(slopes)}
    target = np.asarray(s.data.windows)[:16, -1]
    nothing = ItemLists(np.zeros(0, np.int32), np.zeros(17, np.int64))
    split = titled.split("valid", 8)._replace(inputs=inputs, target=target, history=nothing)
    ranks = ranker(s.scorer(phase), 4)(jax.tree.map(np.asarray, params), s.host, split)

    def by_hand(slopes, rare=12.0):
        weights = shares * ((1 + titled.counts[inputs[:, -1:]]) / 21) ** slopes
        total = sum(w[:, None] * found[name] for w, name in zip(weights.T, phase.experts, strict=True))
        total = np.float32(total * (1 + rare / (1 + titled.counts)))
        return np.asarray(rank_by_counting(jnp.asarray(total), jnp.asarray(target), jnp.zeros((16, 1), int)))

    np.testing.assert_allclose(ranks, by_hand(slopes), atol=0.5)
    for other in (by_hand(np.zeros(3)), by_hand(slopes, 0)):
        assert (np.abs(by_hand(slopes) - other) > 1).sum() > 3


def test_what_a_gate_makes_of_users_and_items():
    gate = {"params": {"shares": jnp.zeros(3), "slopes": jnp.asarray([1.0, 0, -1])}}
    users = BlendGate().apply(gate, jnp.asarray([20, 41]), method="of_users")
    np.testing.assert_allclose(users, [[1, 1, 1], [2, 1, 0.5]], rtol=1e-6)
    items = BlendGate(rare=0.6).apply(gate, jnp.asarray([0, 1, 5]), method="of_items")
    np.testing.assert_allclose(items, [1.6, 1.3, 1.1], rtol=1e-6)


def test_a_score_of_its_own_is_weighed_by_its_expert():
    weight, users = jnp.asarray([2.0, 0.5]), {"id": jnp.ones((2, 3), int), "weight": jnp.ones((2, 3))}
    found = EXPERTS["followers"].weighed(users, weight)
    np.testing.assert_array_equal(found["weight"], [[2, 2, 2], [0.5, 0.5, 0.5]])

    class Own(Expert):
        own_score = True

    with pytest.raises(UserError, match="the expert Own has `own_score` and lacks the method `weighed`"):
        Own().weighed(users, weight)


def _at(tree, path):
    for part in path.split("/"):
        tree = tree[part]
    return tree


@pytest.fixture
def named(world, titled, text, tmp_path):
    """Fields of a run on the titled dataset."""
    as_demo(titled)
    table = tmp_path / "titled.safetensors"
    write_table(table, text[1:], titled, {"encoder": "random"})
    return world | {"text.table": str(table), "method": "blend", "blend.words": 24}


@pytest.mark.slow
def test_the_shares_learn_from_validation_events(named, tmp_path):
    """Each with all that came before it; the expert of the first phase has seen none of them."""
    job = Run(small_config("best", **named), tmp_path / "w", str)
    first, second = job.method.phases
    assert job.data_of(first) is job.data
    assert (first.moves, second.moves) == (("learned",), ())
    windows = np.asarray(job.data_of(second).windows).reshape(-1, 9)
    valid = job.splits["valid"]
    np.testing.assert_array_equal(windows[-len(valid.target) :, -1], valid.target)
    np.testing.assert_array_equal(windows[-len(valid.target) :, :-1], valid.inputs)


@pytest.mark.slow
def test_it_is_trained_served_and_knows_new_items_by_their_titles(named, titled, text, tmp_path, capsys):
    config, workdir = small_config("best", **named, **{"eval.serve": "last"}), tmp_path / "w"
    run(config, workdir)
    assert "blend (finetune)" in capsys.readouterr().out
    model = pad_jax.load(workdir)
    assert model.artifact.scorer.experts == ("learned", "followers", "words")
    more = model.with_items(["n1", "n2"], [titled.titles[6], "unheard of"], np.stack([text[7], text[2]]))
    vectors, gates = more.artifact.vectors, more.artifact.gates
    np.testing.assert_allclose(vectors["words"][31], vectors["words"][7], atol=1e-5)
    assert not vectors["words"][32].any()
    assert not vectors["followers"]["value"][31:].any()
    shares = gates[7] / gates[7].sum()
    np.testing.assert_allclose(gates[:31], (1 + 0.1 / (1 + titled.counts))[:, None] * shares, rtol=1e-5)
    np.testing.assert_allclose(gates[31:], 1.3 * np.stack([shares, shares]), rtol=1e-5)
    assert {"n1", "n2"} <= set(more.recommend([["i6"]], k=32, exclude_history=False).items[0])
    with pytest.raises(UserError, match="the score of the expert 'followers' is not an inner product"):
        model.item_vectors()

    def parts(slopes):
        """Each expert's part of the score of all items, behind i6."""
        gate = {**model.artifact.params["gate"], "slopes": jnp.asarray(slopes)}
        other = pad_jax.Model(replace(model.artifact, params={**model.artifact.params, "gate": gate}))
        lists = other.recommend([["i6"]], k=30, exclude_history=False, explain=True)
        return lists.parts[0][np.argsort(lists.items[0])]

    slopes = np.float32([0.5, -1, 2])
    met = model.artifact.counts[1 + list(model.item_ids).index("i6")]
    np.testing.assert_allclose(
        parts(slopes), parts(np.zeros(3, "f")) * ((1 + met) / 21) ** slopes, rtol=1e-4, atol=1e-7
    )
    job = Run(with_fields(config, {"job": "evaluate"}), workdir, str)
    split = job.splits["test"]
    histories = [[titled.item_ids[i - 1] for i in row if i] for row in split.inputs]
    whole = split.history.lengths == [len(set(history)) for history in histories]
    assert whole.sum() > 5
    ranks = model.ranks(histories, [titled.item_ids[i - 1] for i in split.target])
    np.testing.assert_allclose(ranks[whole], read_ranks(workdir)[f"test/{job.served.name}"][whole])


@pytest.mark.slow
def test_what_bounds_it_is_measured(named, tmp_path, monkeypatch, capsys):
    """On the run's own ranks, and no rows are below those that they know more than."""
    monkeypatch.setattr(blend_bounds, "LEAST_USERS", 5)
    config, workdir = small_config("best", **named), tmp_path / "w"
    run(config, workdir)

    def measured(*options):
        """The lines of the command, by split and what stands in it."""
        monkeypatch.setattr(sys, "argv", ["blend_bounds", "demo", str(workdir), *options])
        capsys.readouterr()
        blend_bounds.main()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        return {(line["split"], line["what"]): line for line in lines if "split" in line}

    found, results = measured(), read_results(workdir)
    for split in ("valid", "test"):
        assert found[split, "the gate"]["all"] == pytest.approx(100 * results["phases"]["finetune"][split]["nDCG@10"])
        alone = [found[split, f"{expert} alone"]["all"] for expert in blend_bounds.EXPERTS]
        assert found[split, "best expert known"]["all"] > max(alone)
    best = found["valid", "best for all"]["all"]
    assert best >= max(line["all"] for (split, what), line in found.items() if split == "valid" and "known" not in what)
    assert found["valid", "group known"]["all"] > best
    assert found["valid", "..without words"]["words"] == 0
    fewer = measured("--words", "12")
    assert fewer["test", "words alone"]["all"] != found["test", "words alone"]["all"]
    assert fewer["test", "learned alone"] == found["test", "learned alone"]
    with pytest.raises(UserError, match=r"blend\.words"):
        measured("--words", "0")
