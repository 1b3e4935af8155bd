"""The methods of other systems that score new items, from their parameters to lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pad_jax
from pad_jax.methods.base import forward
from pad_jax.models.towers import unit
from pad_jax.serving import Artifact, Model
from pad_jax.serving.artifact import Text
from tests.support.data import histories, small_config
from tests.support.steps import Setup

OF_TEXT = {"letitgo": "delta", "alphafuse": "alphafuse", "whitenrec": "whitenrec", "llmemb": "adapter"}


@pytest.fixture
def started(dataset, text):
    """A method, its last phase and parameters of which no table is zeros."""

    def make(method):
        s = Setup(small_config("best", method=method), dataset, text)
        phase = s.method.phases[-1]
        params = s.started(phase, s.previous(phase))
        rows = {name: 0.1 * jnp.ones_like(table).at[0].set(0) for name, table in params.get("tables", {}).items()}
        return s, phase, params | {"tables": rows}

    return make


def without_corrections(method, artifact, text):
    """What a method's expert makes of the text of items 3 and 30 alone."""
    vectors = artifact.vectors[OF_TEXT[method]][[3, 30]]
    if method == "letitgo":
        return vectors - 0.1
    if method == "alphafuse":
        own = artifact.params["towers"]["alphafuse"]["whitening"]
        return unit(jnp.asarray((text[[3, 30]] - np.asarray(own["mean"])) @ np.asarray(own["matrix"])))
    return vectors


@pytest.mark.parametrize("method", OF_TEXT)
def test_a_new_item_is_what_its_text_says(started, dataset, tmp_path, method):
    """The text of known items under new ids, after a way over the disk; and nothing else is needed for that."""
    s, phase, params = started(method)
    rows = np.asarray(s.data.text)
    text = Text(rows.shape[1], {"encoder": "random"})
    Artifact.of(s.scorer(phase), params, s.data, dataset.item_ids, dataset.titles, text).save(tmp_path / "model", {})
    model = pad_jax.load(tmp_path)
    more = model.with_items(["n1", "n2"], ["New", "Newer"], rows[[3, 30]])
    expert = OF_TEXT[method]
    assert model.artifact.scorer.experts == (expert,)
    found = more.artifact.vectors[expert][31:]
    np.testing.assert_allclose(found, without_corrections(method, model.artifact, rows), atol=1e-5)
    assert np.abs(found).max(axis=1).min() > 0.01
    lists = Model(more.artifact).recommend(histories(dataset)[:1], k=32, exclude_history=False)
    assert {"n1", "n2"} <= set(lists.items[0])
    assert np.isfinite(lists.scores).all()


@pytest.mark.parametrize("method", OF_TEXT)
def test_padding_never_reaches_a_state(started, method):
    """With another text and another row of item 0, no state differs."""
    s, phase, params = started(method)
    batch, _ = s.batch()

    @jax.jit
    def states(params, data):
        users = forward(s.scorer(phase), s.config, params, batch, data, None).users[OF_TEXT[method]]
        return jnp.where(batch.valid[:, None], users, 0)

    before = states(params, s.data)
    assert np.asarray(before).any()
    other = s.data._replace(text=s.data.text.at[0].set(5.0))
    changed = params | {"tables": {name: table.at[0].set(3.0) for name, table in params["tables"].items()}}
    np.testing.assert_array_equal(states(changed, other), before)


@pytest.mark.slow
@pytest.mark.xdist_group("serving")
def test_from_training_to_lists(train, dataset, text):
    """Let It Go: a table with a bound, and arrays of its own on the device."""
    _, workdir = train("letitgo")
    model = pad_jax.load(workdir)
    length = np.linalg.norm(model.artifact.tables["delta"], axis=1)
    assert 0 < length[1:].min() <= length.max() <= 0.5
    more = model.with_items(["n1", "n2"], ["New", "Newer"], text[[3, 30]])
    expected = model.artifact.vectors["delta"][[3, 30]] - model.artifact.tables["delta"][[3, 30]]
    np.testing.assert_allclose(more.artifact.vectors["delta"][31:], expected, atol=1e-5)
    assert more.recommend(histories(dataset, 1), k=5).items.shape == (37, 5)
