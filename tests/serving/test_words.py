"""New items of a model that reads words: no vectors and no torch are needed for them."""

import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.run import run
from pad_jax.workdir.results import read_results

WORDS = {"text.table": "", "text.encoder": "tfidf"}
BESIDE = {"text.components": 8, "text.more": ("tfidf",)}


@pytest.fixture
def trained(world, make_config, tmp_path):
    def made(fields):
        config = make_config("best", **world | {"method": "morec"} | fields)
        run(config, tmp_path / "w")
        return config, tmp_path / "w"

    return made


@pytest.mark.slow
def test_words_alone(trained, dataset, tmp_path, monkeypatch):
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    config, workdir = trained(WORDS)
    assert not list(tmp_path.glob("**/text-*"))
    assert read_results(workdir)["text_encoder"]["encoder"] == "tfidf"
    model = pad_jax.load(workdir)
    more = model.with_items(["n1", "n2"], ["Title 3", "never seen"])
    vectors = more.item_vectors()
    np.testing.assert_allclose(vectors[30], vectors[3], rtol=1e-5, atol=1e-6)  # i3 has the title "title 3"
    assert np.isfinite(vectors).all()
    other = model.with_items(["n1"], ["?"], texts=["title 3"])
    np.testing.assert_allclose(other.item_vectors()[30], vectors[30], rtol=1e-5, atol=1e-6)
    assert other.titles[30] == "?"
    with pytest.raises(UserError, match="leave their vectors out"):
        model.with_items(["n"], ["N"], np.ones((1, 61), np.float32))
    (tmp_path / "new.csv").write_text("item,title\nn1,Title 3\nn2,never seen\n")
    asked = replace(config.recommend, catalogue=str(tmp_path / "new.csv"), k=32, exclude_history=False)
    run(replace(config, job="recommend", recommend=asked), workdir)
    frame = pl.read_parquet(workdir / "recommendations.parquet").filter(user=dataset.user_ids[0])
    scores = dict(zip(frame["item"], frame["score"], strict=True))
    assert scores.keys() == {*model.item_ids, "n1", "n2"}
    assert scores["n1"] == pytest.approx(scores["i3"], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_words_beside_an_encoder(trained, text, tmp_path):
    config, workdir = trained(BESIDE)
    assert [m["encoder"] for m in read_results(workdir)["text_encoder"]["more"]] == ["tfidf"]
    model = pad_jax.load(workdir)
    assert [table.transform.kind for table in model.artifact.text.tables] == ["principal"] * 2
    more = model.with_items(["n1", "n2"], ["title 3", "title 5"], text[[4, 4]])
    vectors = more.item_vectors()
    np.testing.assert_allclose(vectors[30], vectors[3], rtol=1e-5, atol=1e-6)
    assert not np.allclose(vectors[31], vectors[30])
    with pytest.raises(UserError, match=r"must be \[1, 12\], as those of random are, not left out"):
        model.with_items(["n"], ["title 3"])
    job = Run(config, workdir, str)
    assert job.data.text.shape == (31, 16)
    assert job.workdir.of == read_results(workdir)["of"]
    with pytest.raises(UserError, match=r"holds another configuration: text.components .*, text.more"):
        _ = Run(replace(config, text=replace(config.text, components=0, more=())), workdir, str).workdir
