"""The dual expert: two views under one encoder, which see no event behind them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.methods.base import forward
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.dual import DualViews
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Items
from tests.support import states
from tests.support.data import laid_out, small_config
from tests.support.states import LENGTH, WIDTH, encode
from tests.support.steps import Setup, drawn


def start(model, mask):
    """Parameters of which none is zero."""
    layout = laid_out(mask)
    x = jnp.zeros((len(layout.grid.cell), WIDTH))
    return states.drawn(jax.eval_shape(lambda key: model.init(key, x, layout, False), jax.random.key(0)))


class Same(nn.Module):
    """A backbone that leaves everything as it is."""

    def __call__(self, x, layout, train):
        return x


@pytest.mark.parametrize(
    "backbone", ["sasrec", *(pytest.param(other, marks=pytest.mark.slow) for other in ("gru4rec", "caser"))]
)
def test_no_state_depends_on_a_later_event_or_another_user(make_config, histories, backbone):
    """By gradients, over users that share bins, cross attention included; on an earlier event it does depend."""
    grid, mask = histories
    config = make_config("paper", model__width=WIDTH, data__length=LENGTH, gru4rec__hidden=4)
    model = DualViews(BACKBONES[backbone](config), True, 0.0)
    params = start(model, mask)
    layout = laid_out(mask)

    @jax.jit
    @jax.grad
    def gradient(grid, user, slot):
        return layout.grid.to_grid(model.apply(params, layout.grid.to_tokens(grid), layout, False))[user, slot].sum()

    reach = np.zeros((4, LENGTH, 4, LENGTH), bool)  # which events each state depends on
    for user, slot in np.argwhere(mask):
        reach[user, slot] = np.abs(np.asarray(gradient(jnp.asarray(grid), user, slot))).sum(axis=-1) > 0
    user, slot = np.meshgrid(np.arange(4), np.arange(LENGTH), indexing="ij")
    same = user[:, :, None, None] == user[None, None]
    earlier = slot[:, :, None, None] >= slot[None, None]
    both = mask[:, :, None, None] & mask[None, None]
    assert not reach[~(same & earlier & both)].any()
    if backbone == "sasrec":  # a Caser or GRU4Rec of random weights may be dead somewhere
        assert reach[same & earlier & both].all()
    assert reach[0, LENGTH - 1, 0, 0]


def test_cross_attention_written_out(histories):
    """Each view is what the other asks of it, in plain numpy, before a backbone that does nothing."""
    grid, _ = histories
    mask = np.ones((1, LENGTH), bool)
    model = DualViews(Same(), True, 0.0)
    params = start(model, mask)
    p = jax.tree.map(np.asarray, params["params"])
    ids, text = (np.sqrt(4) * x + p["positions"] for x in np.split(grid[0], 2, axis=-1))

    def asked(view, other, name):
        query, key, value = (x @ p[f"{name}_{n}"]["kernel"] for x, n in ((other, "q"), (view, "k"), (view, "v")))
        heads = []
        for head in (slice(0, 2), slice(2, 4)):
            scores = np.where(np.tri(LENGTH, dtype=bool), query[:, head] @ key[:, head].T / np.sqrt(2), -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(weights / weights.sum(-1, keepdims=True) @ value[:, head])
        return np.concatenate(heads, -1) @ p[f"{name}_o"]["kernel"] + p[f"{name}_o"]["bias"]

    expected = np.concatenate([asked(ids, text, "ids"), asked(text, ids, "text")], axis=-1)
    np.testing.assert_allclose(encode(model, params, grid[:1], mask)[0], expected, atol=1e-5)
    assert {name for name in p if name.endswith("_q")} == {"ids_q", "text_q"}
    assert all(set(p[f"{view}_{n}"]) == {"kernel"} for view in ("ids", "text") for n in "qkv")


def test_without_cross_attention_equal_halves_have_equal_states(make_config, histories):
    """One encoder for both, of width D/2."""
    grid, mask = histories
    config = make_config("paper", model__width=WIDTH, data__length=LENGTH)
    model = DualViews(BACKBONES["sasrec"](config), False, 0.0)
    params = start(model, mask)
    assert params["params"]["backbone"]["positions"].shape == (LENGTH, 4)
    ids, text = np.split(np.asarray(encode(model, params, np.tile(grid[..., :4], 2), mask)), 2, axis=-1)
    np.testing.assert_array_equal(ids, text)
    assert ids[mask].any()


@pytest.fixture(scope="module")
def seen(dataset, text):
    """A forward pass in recipe `paper`, as a function of parameters and data."""
    s = Setup(small_config("paper", method="llmesr"), dataset, text)
    phase = s.method.phases[0]
    params, batch = drawn(s, phase), s.batch()[0]
    scorer = s.scorer(phase)

    @jax.jit
    def passed(params, data):
        return forward(scorer, s.config, params, batch, data, None)

    return s, scorer, params, batch, passed


def test_an_item_is_its_row_and_an_affine_map_of_its_text(seen):
    s, _, params, _, _ = seen
    assert params["tables"]["dual"].shape == (31, 8)
    assert params["towers"]["dual"]["adapter"]["Dense_0"]["kernel"].shape == (12, 6)
    assert params["towers"]["dual"]["adapter"]["Dense_1"]["kernel"].shape == (6, 8)
    text = np.random.default_rng(0).normal(size=(2, 12)).astype(np.float32)
    rows = params["tables"]["dual"][1:5]
    probes = jnp.asarray(np.stack([text[0] + text[1], *text, np.zeros(12, np.float32)]))
    item = EXPERTS["dual"].items(s.config, params["towers"]["dual"], probes, rows, jnp.arange(4))
    both, one, other, none = np.asarray(item.parts[1])
    np.testing.assert_allclose(both - one - other + none, 0, atol=1e-5)
    assert np.abs(one).max() > 0.1
    np.testing.assert_array_equal(item.vector, np.concatenate([rows, item.parts[1]], axis=-1))


def test_swapping_the_halves_of_item_and_user_leaves_scores(seen):
    s, scorer, params, _, passed = seen
    found = passed(params, s.data)
    users, items = found.users["dual"], found.items["dual"]

    def scores(user, item):
        return np.asarray(scorer.scores({"dual": user}, Items(item, {}), 31))

    usual = scores(users, items.vector)
    np.testing.assert_allclose(scores(jnp.roll(users, 8, axis=1), jnp.roll(items.vector, 8, axis=1)), usual, atol=1e-5)
    halves = [user @ part.T for user, part in zip(np.split(np.asarray(users), 2, axis=1), items.parts, strict=True)]
    np.testing.assert_allclose(sum(halves), usual, atol=1e-5)


def test_the_padding_row_never_reaches_a_state(seen):
    s, _, params, batch, passed = seen
    table = params["tables"]["dual"].at[0].set(1e3)
    other = passed({**params, "tables": {"dual": table}}, s.data._replace(text=s.data.text.at[0].set(1e3)))
    valid = np.asarray(batch.valid)
    assert not valid.all()
    np.testing.assert_array_equal(other.users["dual"][valid], passed(params, s.data).users["dual"][valid])
