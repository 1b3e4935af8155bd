"""Items that are added, retired and retitled, and what is saved of it."""

from dataclasses import replace

import jax
import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.serving import Artifact, Model
from pad_jax.serving.artifact import Text
from pad_jax.text import encode
from tests.support.data import histories, small_config
from tests.support.steps import Setup

serving = pytest.mark.xdist_group("serving")  # tests that share trainings
CODES = {"codes.books": 3, "codes.size": 8, "codes.latent": 4, "codes.hidden": (8,), "codes.steps": 0}
METHODS = ("pad", "disco", "letitgo", "alphafuse", "whitenrec", "llmemb", "llmesr", "moc", "blend")


@pytest.mark.parametrize("method", METHODS)
def test_a_retitled_item_is_what_training_data_with_that_title_make_of_it(dataset, text, method):
    """Items 3 and 30 get text and title of items 8 and 9, in a model and in the data that a model is made of."""
    words = [f"{'red' if n % 2 else 'blue'} {('box', 'cup', 'hat')[n % 3]} {n // 5}" for n in range(dataset.items)]
    dataset = replace(dataset, titles=words)
    s = Setup(small_config("best", method=method, blend__words=8, **CODES), dataset, text)
    phase = s.method.phases[-1]
    params = s.started(phase, s.previous(phase))
    tables = params.get("tables", {})
    tables = {name: 0.1 * jax.random.normal(jax.random.key(1), x.shape) for name, x in tables.items()}
    params |= {"tables": tables}
    rows, old, new = np.asarray(s.data.text), np.array([3, 30]), np.array([8, 9])
    names = dataset.item_ids, dataset.titles, Text(rows.shape[1], {"encoder": "random"})
    before = Model(Artifact.of(s.scorer(phase), params, s.data, *names))
    titles = [dataset.titles[n - 1] for n in new]
    arrays = {name: dict(own) for name, own in s.data.arrays.items()}
    for expert, part in (("codes", "codes"), ("words", "rows")):
        if expert in arrays:
            arrays[expert][part] = arrays[expert][part].at[old].set(arrays[expert][part][new])
    data = s.data._replace(text=s.data.text.at[old].set(s.data.text[new]), arrays=arrays)
    expected = Model(Artifact.of(s.scorer(phase), params, data, *names))
    found = before.retitle([dataset.item_ids[n - 1] for n in old], titles, rows[new])
    for expert, vectors in expected.artifact.vectors.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found.artifact.vectors[expert], vectors)
    np.testing.assert_allclose(found.artifact.gates, expected.artifact.gates, atol=2e-5)
    assert found.titles[2] == titles[0]
    assert before.titles[2] != titles[0]
    for expert in phase.experts:
        if expert not in ("id", "followers"):
            assert not np.allclose(before.artifact.vectors[expert][old], found.artifact.vectors[expert][old], atol=1e-3)
    same = before.retitle([dataset.item_ids[n - 1] for n in old], [dataset.titles[n - 1] for n in old], rows[old])
    for expert in phase.experts:
        parts = same.artifact.vectors[expert], before.artifact.vectors[expert]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *parts)


@pytest.mark.slow
@serving
def test_retired_items_are_listed_nowhere_and_known_in_histories(trained, dataset):
    model = pad_jax.load(trained[1])
    rows = histories(dataset)[:8]
    gone = ["i1", "i2", "i3"]
    left = model.retire_items(gone[:2]).retire_items(["i3", "i1"])
    found = left.recommend(rows, k=30, exclude_history=False)
    whole = model.recommend(rows, k=30, exclude_history=False)
    for row in range(8):
        kept = [item not in gone for item in whole.items[row]]
        assert found.items[row].tolist() == [*whole.items[row][kept], "", "", ""]
        np.testing.assert_array_equal(found.scores[row][:27], whole.scores[row][kept])
    assert not set(gone) & {*left.popular(30).items[0], *left.similar_items(["i1", "i9"], k=29).items.reshape(-1)}
    np.testing.assert_array_equal(left.user_vectors([gone]), model.user_vectors([gone]))
    targets = ["i7"] * 8
    place = [whole.items[row].tolist().index("i7") for row in range(8)]
    met = [[item for item in row if item != "i7"] for row in rows]
    above = [{*whole.items[row][: place[row]]} & set(gone) - set(met[row]) for row in range(8)]
    lists = model.recommend(met, k=30), left.recommend(met, k=30)
    ranks = [[1 + row.tolist().index("i7") for row in one.items] for one in lists]
    np.testing.assert_array_equal(model.ranks(met, targets), ranks[0])
    np.testing.assert_array_equal(left.ranks(met, targets), ranks[1])
    assert any(above)
    with pytest.raises(UserError, match="items: the model knows none"):
        left.recommend(rows, items=["nothing"])
    assert (left.recommend(rows, k=2, items=gone).items == "").all()
    with pytest.raises(UserError, match="item 'strange' is no item of the model"):
        model.retire_items(["strange"])
    with pytest.raises(UserError, match="a list, not a string"):
        model.retire_items("i1")


@pytest.mark.slow
@serving
def test_all_changes_are_saved(trained, dataset, text, tmp_path):
    model, rows = pad_jax.load(trained[1]), histories(dataset)[:4]
    events = pl.DataFrame({"user": ["a", "a", "b"], "item": ["i1", "i2", "n1"], "time": [1, 2, 3]})
    changed = (
        model.add_items(["n1", 7], ["New", "Newer"], text[1:3])
        .retire_items(["i4", "7"])
        .retitle(["i5", "n1"], ["Other", "Newest"], text[9:11])
        .with_events(events)
    )
    again = model.add_items(["n1", "n2"], ["", ""], text[[10, 2]])  # a new item has no rows that could stay
    expected = again.artifact.vectors["text"][[31]], again.artifact.gates[[31]]
    np.testing.assert_allclose(changed.artifact.vectors["text"][[31]], expected[0], atol=1e-6)
    np.testing.assert_allclose(changed.artifact.gates[[31]], expected[1], atol=1e-6)
    for kept in (False, True):
        changed.save(tmp_path / "saved", histories=kept)
        assert ("histories.parquet" in {path.name for path in (tmp_path / "saved").iterdir()}) == kept
    found = pad_jax.load(tmp_path / "saved")
    assert list(found.titles) == list(changed.titles)
    assert found.titles[5] == "Other"
    assert found.results["phases"].keys() == {"pretrain", "align", "finetune"}
    assert found.evaluate().equals(model.evaluate())
    lists = [m.recommend([*rows, "a", "b"], k=30) for m in (found, changed)]
    np.testing.assert_array_equal(lists[0].items, lists[1].items)
    np.testing.assert_array_equal(lists[0].scores, lists[1].scores)
    assert not {"i4", "7"} & set(lists[0].items.reshape(-1))
    more = found.add_items(["n3"], ["Third"], text[3:4])  # what training knew is still known
    assert (more.artifact.of_training, len(more.item_ids)) == (30, 33)
    assert found.retitle(["n1"], ["New"], text[1:2]).artifact.gates[31, 0] == 0
    for bad in (tmp_path, trained[1]):
        with pytest.raises(UserError, match="is there and holds no model: name a new folder"):
            changed.save(bad)
    with pytest.raises(UserError, match="has no histories of users"):
        model.save(tmp_path / "other", histories=True)
    (tmp_path / "saved" / "histories.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"histories.parquet is damaged"):
        pad_jax.load(tmp_path / "saved")


@pytest.mark.slow
@serving
def test_a_saved_model_is_never_taken_for_that_of_the_run(trained):
    config, workdir = trained
    model = pad_jax.load(workdir)
    model.retire_items(["i1"]).save(workdir / "model")
    assert pad_jax.load(workdir).artifact.retired == {"i1"}
    assert Run(config, workdir, str).model().artifact.retired == frozenset()


@pytest.mark.slow
@serving
def test_new_titles_are_encoded_as_those_of_the_run_were(trained, text, monkeypatch):
    """The run's table says that the encoder `random` made it."""
    model = pad_jax.load(trained[1])
    asked = []

    def encoder(texts, config):
        asked.append((list(texts), config.encoder))
        return text[1 : 1 + len(texts)], {}

    monkeypatch.setattr(encode, "encode", encoder)
    found = model.add_items(["n1", "n2"], ["A", "B"], texts=["A by C", "B by D"])
    np.testing.assert_array_equal(
        found.item_vectors(), model.add_items(["n1", "n2"], ["", ""], text[1:3]).item_vectors()
    )
    model.retitle(["i1"], ["E"])
    assert asked == [(["A by C", "B by D"], "random"), (["E"], "random")]
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="encoding titles needs torch: pip install"):
        model.add_items(["n1"], ["A"])


@pytest.mark.slow
@serving
def test_what_cannot_be_retitled(train):
    model = pad_jax.load(train("sasrec", "gru4rec")[1])
    found = model.retitle(["i1"], ["Shown"])  # IDs alone: the title is what lists show, and nothing else
    assert found.titles[1] == "Shown"
    np.testing.assert_array_equal(found.item_vectors(), model.item_vectors())
    for ids, titles, message in (
        (["i1", "i1"], ["", ""], "'i1' is named twice"),
        (["strange"], [""], "'strange' is no item of the model"),
        (["i1"], [], "each of 1 items needs a title: there are 0"),
    ):
        with pytest.raises(UserError, match=message):
            model.retitle(ids, titles)
