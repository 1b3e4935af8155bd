"""LLM-ESR: its loss, its teachers, its start, and a run of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pad_jax
from pad_jax.batching.device import training_rows
from pad_jax.errors import UserError
from pad_jax.methods.fills import text_start
from pad_jax.methods.llmesr import distillation, refresh
from pad_jax.models.experts import EXPERTS
from pad_jax.text.users import mean_profiles, nearest
from tests.support.data import histories
from tests.support.steps import drawn


def test_the_distance_to_the_mean_teacher_is_a_known_number():
    """Mean over users and dimensions; no gradient reaches the teacher, and whoever is his own teacher has no loss."""
    i, j = np.mgrid[:4, :3]
    zs, zt = np.sin(1.0 + i + 2 * j), np.cos(1.0 + 2 * i + j) + 0.5
    pairs, itself = np.array([[0, 1], [1, 2], [2, 3], [3, 0]]), np.arange(4)[:, None]
    every = np.ones(4, bool)

    def value(student, teacher, similar, there):
        return distillation(student, teacher, jnp.asarray(similar), jnp.asarray(there)).value

    @jax.jit
    def values(zs, zt):
        whole = value(zs, zt, pairs, every)
        gradients = jax.grad(value, argnums=(0, 1))(zs, zt, pairs, every)
        return whole, gradients, value(zs, zs, itself, every), value(zs, zt, pairs, every & (np.arange(4) == 0))

    with jax.enable_x64(True):
        whole, (own, other), none, first = values(zs, zt)
    assert abs(float(whole) - 1.340407446886) < 1e-9
    goal = (zt + np.roll(zt, -1, axis=0)) / 2
    np.testing.assert_allclose(own, 2 * (zs - goal) / 12, atol=1e-9)
    assert not np.asarray(other).any()
    assert float(none) == 0
    assert abs(float(first) - np.square(zs - goal)[0].mean()) < 1e-9


def test_a_user_who_is_his_own_teacher_has_no_loss(setup):
    """The teacher of an epoch is the state that the batch has without dropout, before the logit scale."""
    s = setup("llmesr", "best")
    phase = s.method.phases[0]
    params, (batch, _), scorer = drawn(s, phase), s.batch(), s.scorer(phase)
    data = refresh(scorer, s.config, params, s.data)
    assert data.arrays["dual"]["teacher"].shape == s.data.arrays["dual"]["teacher"].shape == (37, 16)

    @jax.jit
    def distilled(params, similar, teacher, scale):
        encoder = params["encoders"]["dual"] | {"log_scale": scale}
        params = params | {"encoders": {"dual": encoder}}
        arrays = {"dual": {"similar": similar, "teacher": teacher}}
        return phase.loss(scorer, s.config, params, batch, s.data._replace(arrays=arrays), None)["distil"][1].value

    itself, teacher = jnp.arange(37)[:, None], jnp.asarray(np.asarray(data.arrays["dual"]["teacher"]))
    scale = params["encoders"]["dual"]["log_scale"]
    assert float(distilled(params, itself, teacher, scale)) < 1e-10
    usual = float(distilled(params, itself[::-1], teacher, scale))
    assert usual > 1e-4
    np.testing.assert_allclose(distilled(params, itself[::-1], teacher, scale + 1), usual, rtol=1e-4)


def test_similar_users_are_rows_of_their_latest_windows(make_config, dataset, text):
    """With several windows of a user, each has the neighbours of the user."""
    config = make_config(**{"method": "llmesr", "data.windows": "all", "data.length": 3, "llmesr.neighbours": 4})
    windows, owner = training_rows(dataset, config.data)
    similar = EXPERTS["dual"].arrays(config, dataset, text)["similar"]
    assert similar.shape == (len(windows), 4)
    assert len(windows) > 37
    np.testing.assert_array_equal(owner[similar], nearest(mean_profiles(dataset, text), 4)[owner])
    assert not (owner[similar] == owner[:, None]).any()
    for row in np.unique(similar):
        user = dataset.training_users[owner[row]]
        end = dataset.cuts.train_end[user]
        np.testing.assert_array_equal(windows[row][-2:], dataset.events[end - 2 : end])


def test_without_weight_there_is_no_teacher(setup):
    s = setup("llmesr", **{"llmesr.weight": 0.0})
    assert s.method.phases[0].each_epoch is None
    assert s.data.arrays == {}


def test_ids_start_as_the_texts_principal_directions(setup):
    assert setup("llmesr").method.phases[0].fill == {"tables/dual": text_start}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.width": 18}, "config.model.width=18 does not divide by 4: two views with 2 heads"),
        ({"model.width": 12, "sasrec.heads": 4}, "does not divide into two views with config.sasrec.heads=4"),
    ],
)
def test_a_width_without_halves_is_one_line(make_config, fields, message):
    with pytest.raises(UserError, match=message):
        make_config(method="llmesr", **fields)


def test_more_teachers_than_users_is_one_line(make_config, dataset, text):
    config = make_config(**{"method": "llmesr", "llmesr.neighbours": 37})
    with pytest.raises(UserError, match=r"37 users train, so none has config\.llmesr\.neighbours=37 others: lower it"):
        EXPERTS["dual"].arrays(config, dataset, text)


@pytest.mark.slow
def test_a_run_is_ranked_served_and_knows_new_items(train, dataset, text):
    """A new item has an ID half of zeros, and the text half of an item of the same text."""
    _, workdir = train(method="llmesr")
    model = pad_jax.load(workdir)
    known = histories(dataset)
    assert model.recommend(known, k=5).items.shape == (37, 5)
    more = model.with_items(["new"], ["New"], text[3:4])
    vectors = more.item_vectors()
    assert not vectors[-1, :8].any()
    assert vectors[2, :8].any()
    np.testing.assert_allclose(vectors[-1, 8:], vectors[2, 8:], atol=1e-6)
    assert any("new" in row for row in more.recommend(known, k=30).items)
