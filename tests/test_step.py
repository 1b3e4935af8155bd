"""The training steps: what moves, what does not, and that devices do not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from pad_jax.data.batches import device_data, make_batch, packer, scored_items
from pad_jax.evaluation.ranking import rank_by_counting, ranker
from pad_jax.methods import METHODS
from pad_jax.methods.base import forward, fused_loss
from pad_jax.training import parallel, parameters
from pad_jax.training.loop import block_of_steps
from pad_jax.training.optimizer import adamw
from pad_jax.training.step import TrainState, merge, train_step

ROWS = np.arange(16, dtype=np.int32)
# (phase, recipe, overrides)
CASES = {
    "pretrain-paper": ("pretrain", "paper", {}),
    "align-paper": ("align", "paper", {}),
    "finetune-paper": ("finetune", "paper", {}),
    "align-official": ("align", "official", {}),
    "pretrain-sampled": ("pretrain", "paper", {"loss": "sampled_softmax"}),
    "align-best": ("align", "best", {}),
    "finetune-best": ("finetune", "best", {}),
    "finetune-each": ("finetune", "best", {"experts.freeze_carried": False}),
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
    "smem-finetune": ("finetune", "best", {"method": "smem"}),
    "finetune-lazy": ("finetune", "paper", {"optimizer.tables": "lazy", "loss": "sampled_softmax"}),
}
ON_DEVICES = ["align-paper", "align-official", "pretrain-sampled", "finetune-best", "finetune-each", "finetune-lazy"]
ON_DEVICES += ["ctrl-align", "disco-best"]


class Setup:
    """A method on the tiny dataset, phase by phase."""

    def __init__(self, config, dataset, text):
        self.config, self.method = config, METHODS[config.method](config)
        width = 16 if config.model.text_tower == "residual" else 12
        table = np.pad(text, ((0, 0), (0, width - 12)))
        self.items = dataset.items
        self.host = device_data(dataset, config.data.length, config.data.buckets, table)
        self.data = jax.tree.map(jnp.asarray, self.host)

    def scorer(self, phase):
        return phase.scorer(self.config)

    def state(self, phase, previous=None, seed=0):
        fresh = phase.fresh(self.config, jax.random.key(seed), self.items, self.data.text.shape[1])
        params, frozen = parameters.split(parameters.start(phase, fresh, previous), phase.keep)
        optimizer = adamw(self.config, phase.limits(self.config))
        return optimizer, TrainState(params, frozen, optimizer.init(params), jnp.int32(0))

    def previous(self, phase):
        """Parameters as the phase before would leave them, without training."""
        previous = None
        for before in self.method.phases[: self.method.phases.index(phase)]:
            _, state = self.state(before, previous, seed=7)
            previous = merge(state.params, state.frozen)
        return previous

    def packed(self, rows, devices):
        windows = np.asarray(self.data.windows)
        return packer(windows, devices, self.config.mmd.group, self.config.mmd.include_padding)(rows)

    def batch(self, rows=ROWS):
        packed, caps = self.packed(rows[None], 1)
        packed = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        return make_batch(self.data, packed, jnp.int32(0), jax.random.key(5), caps), caps


@pytest.fixture
def setup(make_config, dataset, text):
    return lambda recipe="paper", **overrides: Setup(make_config(recipe, **overrides), dataset, text)


@pytest.mark.parametrize("case", CASES)
def test_every_trained_leaf_moves_and_no_frozen_one(setup, case):
    """By its gradient: there is no weight decay here, which would move a leaf that nothing depends on."""
    name, recipe, overrides = CASES[case]
    s = setup(recipe, **overrides | {"train.weight_decay": 0.0, "train.gate_weight_decay": 0.0})
    phase = next(p for p in s.method.phases if p.name == name)
    optimizer, state = s.state(phase, s.previous(phase))
    before = jax.tree.map(np.array, (state.params, state.frozen))
    batch, _ = s.batch()
    step = jax.jit(lambda st, key: phase.step(optimizer, s.scorer(phase), s.config, st, batch, s.data, key))
    after = state
    for number in range(3):  # a layer behind one that starts at zero moves from the second step on
        after, metrics = step(after, jax.random.key(number))
    assert all(np.isfinite(v) for v in metrics.values())
    for path, leaf in flatten_dict(after.params, sep="/").items():
        assert (np.asarray(leaf) != flatten_dict(before[0], sep="/")[path]).any(), path
    equal(after.frozen, before[1])


def equal(tree, other):
    for path, leaf in flatten_dict(tree, sep="/").items():
        np.testing.assert_array_equal(leaf, flatten_dict(other, sep="/")[path], err_msg=path)


def test_align_keeps_the_pre_trained_expert_out_of_the_optimizer(setup):
    s = setup()
    phase = s.method.phases[1]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    assert set(flatten_dict(state.frozen, sep="/")) >= {"tables/id"}
    assert all(p.startswith(("tables/id", "encoders/id")) for p in flatten_dict(state.frozen, sep="/"))
    frozen = {leaf.shape for leaf in jax.tree.leaves(state.frozen["tables"])}
    assert frozen == {(31, 16)}
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * trained
    np.testing.assert_array_equal(state.params["tables"]["aligned"], previous["tables"]["id"])
    equal(state.params["encoders"]["aligned"], previous["encoders"]["id"])


def test_finetune_starts_where_align_ended(setup):
    s = setup()
    phase = s.method.phases[2]
    previous = s.previous(phase)
    _, state = s.state(phase, previous)
    for path, leaf in flatten_dict(previous, sep="/").items():
        np.testing.assert_array_equal(flatten_dict(state.params, sep="/")[path], leaf, err_msg=path)
    assert set(state.params["encoders"]) == {"id", "aligned", "text"}
    assert state.frozen == {}


def test_a_frozen_path_that_matches_nothing_is_an_error(setup):
    s = setup()
    _, state = s.state(s.method.phases[0])
    with pytest.raises(ValueError, match="tables/idd"):
        parameters.split(state.params, ("tables/idd",))


def run_on(devices, s, phase, state, optimizer, steps=2, rows=None):
    """`steps` steps of the mapped block on the first `devices` devices."""
    rows = np.stack([ROWS, (ROWS + 21) % 37]).astype(np.int32) if rows is None else rows
    packed, caps = s.packed(rows, devices)
    block = block_of_steps(phase, s.scorer(phase), s.config, optimizer)
    mapped = parallel.over_devices(block, jax.devices()[:devices])
    state = jax.tree.map(lambda x: jnp.array(x, copy=True), state)  # the mapped block donates its state
    split = jax.tree.map(lambda x: x.reshape(len(x), devices, -1).swapaxes(0, 1), packed)
    return mapped(state, s.data, jnp.int32(steps), jax.random.key(2), split, caps)


@pytest.mark.parametrize("case", ON_DEVICES)
def test_steps_do_not_depend_on_the_number_of_devices(setup, case):
    name, recipe, overrides = CASES[case]
    s = setup(recipe, **overrides)
    phase = next(p for p in s.method.phases if p.name == name)
    optimizer, state = s.state(phase, s.previous(phase))
    rows = np.stack([ROWS, np.where(ROWS < 5, ROWS + 30, -1)]).astype(np.int32)  # the last batch is short
    results = {n: run_on(n, s, phase, state, optimizer, rows=rows) for n in (1, 2, 4)}
    one, metrics = results[1]
    for devices in (2, 4):
        other, others = results[devices]
        for metric, value in metrics.items():
            np.testing.assert_allclose(others[metric], value, rtol=2e-4, err_msg=metric)
        for path, leaf in flatten_dict(other.params, sep="/").items():
            moved = 2 * s.config.pretrain.learning_rate
            np.testing.assert_allclose(
                leaf, flatten_dict(one.params, sep="/")[path], atol=max(0.02 * moved, 2e-6), err_msg=path
            )
            replicas = [np.asarray(shard.data) for shard in leaf.addressable_shards]
            assert len(replicas) == devices
            assert all(np.array_equal(replicas[0], replica) for replica in replicas), path


def test_empty_steps_are_not_taken(setup):
    s = setup()
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    after, _ = run_on(2, s, phase, state, optimizer, steps=1)
    assert int(after.step) == 1


@pytest.mark.parametrize("loss", ["bce", "sampled_softmax"])
def test_items_that_a_batch_holds_more_than_once_change_nothing(setup, loss):
    """Towers on distinct items give the loss and gradients of towers on the whole catalogue."""
    s = setup("paper", loss=loss, **{"train.sampled": 4, "optimizer.tables": "lazy"})  # lazy: never the catalogue
    phase = s.method.phases[2]
    _, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()
    scored = scored_items(s.config, batch, s.items + 1)
    assert len(batch.distinct) < len(batch.items)
    np.testing.assert_array_equal(scored.ids[scored.event], batch.items)
    np.testing.assert_array_equal(scored.ids[scored.drawn], scored.drawn_ids)

    def loss_and_gradients(monkey):
        with pytest.MonkeyPatch.context() as patch:
            if monkey:
                everything = scored._replace(ids=jnp.arange(s.items + 1), event=batch.items, drawn=scored.drawn_ids)
                patch.setattr("pad_jax.methods.base.scored_items", lambda *_: everything)
            else:
                patch.setattr("pad_jax.methods.base.scored_items", lambda *_: scored)
            return jax.value_and_grad(lambda p: loss_of(s, phase, p, batch).value)(state.params)

    one, other = loss_and_gradients(False), loss_and_gradients(True)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    for path, leaf in flatten_dict(one[1], sep="/").items():
        np.testing.assert_allclose(leaf, flatten_dict(other[1], sep="/")[path], rtol=1e-4, atol=1e-7, err_msg=path)


def test_lazy_tables_are_adamw_on_the_rows_of_the_batch(setup):
    """Two steps on one batch: its rows move as under AdamW, which is given the same batch; others stay, moments too."""
    lazy, dense = (setup(optimizer__tables=tables) for tables in ("lazy", "dense"))
    phase = lazy.method.phases[0]
    batch, _ = lazy.batch(np.array([5, -1, -1, -1], np.int32))
    touched = np.unique(np.concatenate([batch.items, batch.negatives]))
    untouched = np.setdiff1d(np.arange(lazy.items + 1), touched)
    assert len(untouched)
    after = {}
    for name, s in (("lazy", lazy), ("dense", dense)):
        optimizer, state = s.state(phase)
        before = np.array(state.params["tables"]["id"])
        for _ in range(2):
            state, _ = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, None)
        after[name] = state
    table = np.asarray(after["lazy"].params["tables"]["id"])
    np.testing.assert_allclose(table[touched], after["dense"].params["tables"]["id"][touched], rtol=1e-4, atol=1e-6)
    assert (table[touched[1:]] != before[touched[1:]]).any(axis=1).all()
    np.testing.assert_array_equal(table[untouched], before[untouched])
    assert not np.asarray(after["lazy"].opt_state["tables"]["id"].square)[untouched].any()
    for path, leaf in flatten_dict(after["lazy"].params["encoders"], sep="/").items():
        other = flatten_dict(after["dense"].params["encoders"], sep="/")[path]
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-5, err_msg=path)


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


def loss_of(s, phase, params, batch):
    scorer = s.scorer(phase)
    return fused_loss(scorer, s.config, params, batch, forward(scorer, s.config, params, batch, s.data, None))


@pytest.mark.parametrize(("name", "recipe"), [("pretrain", "paper"), ("align", "paper"), ("finetune", "best")])
def test_ranking_scores_are_training_logits(setup, dataset, name, recipe):
    """The fused score of the ranking equals the per-pair logit of the training loss, for every position's target."""
    s = setup(recipe, loss="bce", train__adjustment=0.0)
    phase = next(p for p in s.method.phases if p.name == name)
    _, state = s.state(phase, s.previous(phase))
    scorer, params = s.scorer(phase), merge(state.params, state.frozen)
    batch, _ = s.batch()
    loss = loss_of(s, phase, params, batch)

    everything = jnp.arange(s.items + 1)
    vectors = scorer.item_vectors(params, everything, s.data)
    gated = scorer.gated(params, vectors, s.data.bucket)
    inputs = {e: batch.inputs_of(v.vector[batch.items]) for e, v in vectors.items()}
    scores = scorer.users(params, inputs, batch.layout) @ gated.T
    valid = np.asarray(batch.valid)
    positive = np.take_along_axis(np.asarray(scores), np.asarray(batch.targets)[:, None], 1)[valid, 0]
    negative = np.take_along_axis(np.asarray(scores), np.asarray(batch.negatives)[:, None], 1)[valid, 0]
    expected = (np.logaddexp(0, -positive) + np.logaddexp(0, negative)).mean()
    np.testing.assert_allclose(loss.value, expected, rtol=1e-5)

    # and the ranking of a user whose newest event has a training target counts those very logits
    split = dataset.split("valid", s.config.data.length)
    newest = batch.layout.last(jnp.arange(len(batch.layout.uid), dtype=jnp.float32)[:, None])[:, 0].astype(int)
    inputs = np.asarray(s.data.windows)[ROWS][:, :-1]
    shifted = split._replace(
        inputs=inputs,
        target=np.asarray(batch.targets)[newest],
        history=np.zeros_like(inputs),
    )
    expected = rank_by_counting(scores[newest], jnp.asarray(shifted.target), jnp.zeros((len(ROWS), 1), jnp.int32))
    ranks = ranker(scorer, 4)(jax.tree.map(np.asarray, params), s.host, shifted)
    np.testing.assert_allclose(ranks, expected, atol=0.5)


def test_padding_pairs_fill_the_groups_of_the_official_recipe(setup):
    """With `mmd.include_padding` every group has batch * 2 * (L + 1) rows; without, only its events."""
    values = {}
    for padding in (False, True):
        s = setup("paper", mmd__include_padding=padding)
        phase = s.method.phases[1]
        optimizer, state = s.state(phase, s.previous(phase))
        batch, caps = s.batch()
        assert (caps.group_tokens == 4 * 9) == padding
        _, metrics = phase.step(optimizer, s.scorer(phase), s.config, state, batch, s.data, jax.random.key(0))
        values[padding] = float(metrics["mmd"])
    assert values[False] != values[True]


def test_loss_of_an_expert_alone_when_the_gate_says_so(setup):
    """With the other gates at -inf, PAD scores like its ID expert."""
    s = setup("paper", **{"gate.kind": "bucket"})
    phase = s.method.phases[2]
    _, state = s.state(phase, s.previous(phase))
    params = jax.tree.map(lambda x: x, state.params)
    params["gate"] = params["gate"] | {f"{e}_bucket": jnp.full(11, -1e9) for e in ("aligned", "text")}
    batch, _ = s.batch()
    fused = loss_of(s, phase, params, batch)
    alone = loss_of(s, s.method.phases[0], params, batch)
    np.testing.assert_allclose(fused.value, alone.value, rtol=1e-6)


@pytest.mark.parametrize("loss", ["ce", "bce", "sampled_softmax"])
def test_adjusted_logits_are_those_of_training_alone(setup, loss):
    """Scores + tau * log(count), without items that training never meets, under the loss in plain numpy."""
    s = setup("paper", loss=loss, method="hybrid", **{"train.adjustment": 0.5, "train.sampled": 12})
    phase = s.method.phases[0]
    _, state = s.state(phase)
    batch, _ = s.batch()
    unseen = int(np.setdiff1d(np.arange(1, s.items + 1), batch.targets)[0])
    count = np.asarray(s.data.counts).copy()
    count[unseen] = 0
    s.data = s.data._replace(counts=jnp.asarray(count))
    scorer = s.scorer(phase)
    items = scorer.item_vectors(state.params, jnp.arange(s.items + 1), s.data)["aligned"].vector
    users = scorer.users(state.params, {"aligned": batch.inputs_of(items[batch.items])}, batch.layout)
    logits = np.asarray(users @ items.T, np.float64)[np.asarray(batch.valid)]
    with np.errstate(divide="ignore"):
        logits += 0.5 * np.log(count)[None]
    target, drawn = (np.asarray(x)[np.asarray(batch.valid)] for x in (batch.targets, batch.negatives))
    own = np.take_along_axis(logits, target[:, None], 1)
    if loss == "ce":
        expected = np.log(np.exp(logits[:, 1:] - own).sum(axis=1)).mean()
    elif loss == "bce":
        negative = np.take_along_axis(logits, drawn[:, None], 1)
        expected = (np.logaddexp(0, -own) + np.logaddexp(0, negative)).mean()
    else:
        ids = np.asarray(scored_items(s.config, batch, s.items + 1).drawn_ids)
        others = logits[:, ids] + np.log(29 / 12)
        others[ids[None] == target[:, None]] = -np.inf
        expected = np.log(1 + np.exp(others - own).sum(axis=1)).mean()
    value, gradient = jax.value_and_grad(lambda p: loss_of(s, phase, p, batch).value)(state.params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    only_a_candidate = unseen not in np.asarray(batch.items)
    assert np.asarray(gradient["tables"]["aligned"][unseen]).any() != only_a_candidate


def test_ids_alone_are_trained_without_the_adjustment(setup):
    """Phase 1, and the ID expert's own loss in phase 3, are the same functions with it as without."""
    values = {}
    for tau in (0.0, 0.5):
        s = setup("best", **{"train.adjustment": tau, "experts.freeze_carried": False})
        first, _, last = s.method.phases
        _, state = s.state(first)
        batch, _ = s.batch()
        values[tau, "pretrain"] = float(loss_of(s, first, state.params, batch).value)
        _, state = s.state(last, s.previous(last))
        _, metrics = last.step(
            adamw(s.config, last.limits(s.config)), s.scorer(last), s.config, state, batch, s.data, None
        )
        values |= {(tau, name): float(metrics[name]) for name in ("id", "text", "gate")}
    assert values[0.5, "pretrain"] == values[0.0, "pretrain"]
    assert values[0.5, "id"] == values[0.0, "id"]
    assert all(values[0.5, name] != values[0.0, name] for name in ("text", "gate"))
