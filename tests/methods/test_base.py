"""The forward pass and L_REC of what it gives, whatever the method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.batching.batch import scored_items
from pad_jax.data.dataset import ItemLists
from pad_jax.evaluation.ranking import rank_by_counting, ranker
from pad_jax.training.step import merge
from tests.support.steps import ROWS, leaves


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["bce", "sampled_softmax"])
def test_items_that_a_batch_holds_more_than_once_change_nothing(setup, loss):
    """Towers on distinct items give the loss and gradients of towers on the whole catalogue."""
    s = setup("pad", loss=loss, **{"train.sampled": 4, "optimizer.tables": "lazy"})  # lazy: never the catalogue
    phase = s.method.phases[2]
    _, state = s.state(phase, s.previous(phase))
    batch, _ = s.batch()
    scored = scored_items(s.config, batch, s.items + 1)
    assert len(batch.distinct) < len(batch.event_item)
    np.testing.assert_array_equal(scored.ids[scored.event_row], batch.event_item)
    np.testing.assert_array_equal(scored.ids[scored.drawn_row], scored.drawn_ids)

    def loss_and_gradients(monkey):
        with pytest.MonkeyPatch.context() as patch:
            if monkey:
                everything = scored._replace(
                    ids=jnp.arange(s.items + 1), event_row=batch.event_item, drawn_row=scored.drawn_ids
                )
                patch.setattr("pad_jax.methods.base.scored_items", lambda *_: everything)
            else:
                patch.setattr("pad_jax.methods.base.scored_items", lambda *_: scored)
            return s.loss_and_gradients(phase, state.params, batch)

    one, other = loss_and_gradients(False), loss_and_gradients(True)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-6)
    for path, leaf in leaves(one[1]).items():
        np.testing.assert_allclose(leaf, leaves(other[1])[path], rtol=1e-4, atol=1e-7, err_msg=path)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("pretrain", "paper"),
        *(pytest.param(*p, marks=pytest.mark.slow) for p in (("align", "paper"), ("finetune", "best"))),
    ],
)
def test_ranking_scores_are_training_logits(setup, dataset, name, recipe):
    """The fused score of the ranking equals the per-pair logit of the training loss, for every position's target."""
    s = setup("pad", recipe, loss="bce", train__adjustment=0.0)
    phase = s.phase(name)
    _, state = s.state(phase, s.previous(phase))
    scorer, params = s.scorer(phase), merge(state.params, state.frozen)
    batch, _ = s.batch()
    loss = s.loss(phase, params, batch)

    @jax.jit
    def all_scores(params, batch, data):
        vectors = scorer.item_vectors(params, jnp.arange(s.items + 1), data)
        gated = scorer.gated(params, vectors, data.bucket, data.counts)
        inputs = {e: batch.inputs_of(v.vector[batch.event_item]) for e, v in vectors.items()}
        return scorer.scores(scorer.users(params, inputs, batch.layout, batch.targets), gated, s.items + 1)

    scores = all_scores(params, batch, s.data)
    valid = np.asarray(batch.valid)
    positive = np.take_along_axis(np.asarray(scores), np.asarray(batch.targets)[:, None], 1)[valid, 0]
    negative = np.take_along_axis(np.asarray(scores), np.asarray(batch.negatives)[:, None], 1)[valid, 0]
    expected = (np.logaddexp(0, -positive) + np.logaddexp(0, negative)).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)

    # and the ranking of a user whose newest event has a training target counts those very logits
    split = dataset.split("valid", s.config.data.length)
    newest = batch.layout.last(jnp.arange(len(batch.layout.uid), dtype=jnp.float32)[:, None])[:, 0].astype(int)
    inputs = np.asarray(s.data.windows)[ROWS][:, :-1]
    shifted = split._replace(
        inputs=inputs,
        target=np.asarray(batch.targets)[newest],
        history=ItemLists(np.zeros(0, np.int32), np.zeros(len(ROWS) + 1, np.int64)),
    )
    expected = rank_by_counting(scores[newest], jnp.asarray(shifted.target), jnp.zeros((len(ROWS), 1), jnp.int32))
    ranks = ranker(scorer, 4)(jax.tree.map(np.asarray, params), s.host, shifted)
    np.testing.assert_allclose(ranks, expected, atol=0.5)


@pytest.mark.parametrize("loss", ["ce", "bce", "sampled_softmax"])
def test_adjusted_logits_are_those_of_training_alone(setup, loss):
    """Scores + tau * log(count), without items that training never meets, under the loss in plain numpy."""
    s = setup("hybrid", loss=loss, **{"train.adjustment": 0.5, "train.sampled": 12})
    phase = s.method.phases[0]
    _, state = s.state(phase)
    batch, _ = s.batch()
    unseen = int(np.setdiff1d(np.arange(1, s.items + 1), batch.targets)[0])
    count = np.asarray(s.data.counts).copy()
    count[unseen] = 0
    s.data = s.data._replace(counts=jnp.asarray(count))
    scorer = s.scorer(phase)

    @jax.jit
    def products(params, batch, data):
        items = scorer.item_vectors(params, jnp.arange(s.items + 1), data)["aligned"].vector
        inputs = {"aligned": batch.inputs_of(items[batch.event_item])}
        return scorer.users(params, inputs, batch.layout, batch.targets)["aligned"] @ items.T

    logits = np.asarray(products(state.params, batch, s.data), np.float64)[np.asarray(batch.valid)]
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
    value, gradient = s.loss_and_gradients(phase, state.params, batch)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    only_a_candidate = unseen not in np.asarray(batch.event_item)
    assert np.asarray(gradient["tables"]["aligned"][unseen]).any() != only_a_candidate
