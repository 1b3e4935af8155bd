"""Where a run has its text vectors from."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.run import main
from pad_jax.text.source import TextSource, table_path
from tests.support.data import ROOT, write_table
from tests.support.registries import as_demo


def test_own_vectors_are_never_overwritten(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    as_demo(dataset)
    np.save("own.npy", np.ones((30, 4), np.float32))
    save_file({"mine": np.ones((30, 4), np.float32)}, "own.safetensors")
    for name in ("own.npy", "own.safetensors"):
        before = (tmp_path / name).read_bytes()
        assert main(["main.py", f"--config={ROOT}/configs/demo.py:encode", f"--config.text.table={name}"]) == 2
        assert "is not a table that the job `encode` made" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == before


def test_other_texts_of_the_same_items_have_a_table_of_their_own(dataset, text, make_config, tmp_path, monkeypatch):
    """A template or a catalogue that changes does not train on the vectors of yesterday's texts."""
    monkeypatch.chdir(tmp_path)
    config = make_config()
    usual = table_path(config)
    usual.parent.mkdir(parents=True)
    write_table(usual, text[1:], dataset, {"encoder": config.text.encoder})
    assert TextSource(config, dataset).path == usual
    other = replace(dataset, own_texts=[f"{title}, again" for title in dataset.titles])
    found = TextSource(config, other)
    assert found.path.name == f"{usual.stem}-{other.texts_sha256[:8]}.safetensors"
    assert found.table is None
    raw = table_path(make_config(**{"text.normalize": False}))  # recipe `official`: one dataset has both
    assert raw.name == usual.name.replace(".safetensors", "-raw.safetensors")
    named = TextSource(make_config(**{"text.table": str(usual)}), other)
    with pytest.raises(UserError, match="was made from other texts of these items"):
        _ = named.table


def source_of(config, dataset):
    return TextSource(config, dataset, "pad")


def test_tables_stand_side_by_side(dataset, text, make_config, tmp_path):
    """Each through its own transform, in their order; and all of them are whose run it is."""
    np.save(tmp_path / "own.npy", text[1:])
    np.save(tmp_path / "other.npy", text[1:, ::-1])
    fields = {"text.table": f"{tmp_path}/own.npy", "text.transform": "none"}
    first = source_of(make_config(**fields), dataset)
    more = ("tfidf:principal:5", f"{tmp_path}/other.npy:standardize")
    both = source_of(make_config(**fields, **{"text.more": more}), dataset)
    rows = both.for_training()
    np.testing.assert_array_equal(rows[0], 0)
    words = source_of(
        make_config(**{"text.encoder": "tfidf", "text.transform": "principal", "text.components": 5}), dataset
    )
    other = source_of(make_config(**{"text.table": f"{tmp_path}/other.npy", "text.transform": "standardize"}), dataset)
    parts = [source.for_training() for source in (first, words, other)]
    assert [part.shape[1] for part in parts] == [12, 5, 12]
    np.testing.assert_array_equal(rows, np.concatenate(parts, axis=1))
    assert first.manifest == {"encoder": "own.npy", "own": True}
    assert [m["encoder"] for m in both.manifest["more"]] == ["tfidf", "other.npy"]
    assert first.sha256 == first.table.sha256
    renamed = replace(dataset, own_texts=[f"{title} x" for title in dataset.titles])
    np.save(tmp_path / "other.npy", text[1:])
    shas = {first.sha256, both.sha256, source_of(both.config, dataset).sha256, source_of(both.config, renamed).sha256}
    assert len(shas) == 4
    assert TextSource(both.config, dataset).sha256 == first.sha256  # a method without text reads the first alone
    new = text[1:4] + 1
    found = both.served().rows(["title 3", "?", "title title 5"], np.concatenate([new, new[:, ::-1]], axis=1))
    assert found.shape == (3, 29)
    np.testing.assert_array_equal(found[:, :12], new)
    np.testing.assert_array_equal(found[0, 12:17], parts[1][4])
    np.testing.assert_array_equal(found[:, 17:], other.transform(new[:, ::-1]))


def test_widths_of_tables_side_by_side_have_to_fit_a_residual_tower(dataset, text, make_config, tmp_path):
    np.save(tmp_path / "own.npy", text[1:])
    fields = {"text.table": f"{tmp_path}/own.npy", "text.more": ("tfidf",)}
    config = make_config("best", **fields)
    width = source_of(config, dataset).for_training().shape[1]
    with pytest.raises(UserError, match=r"width 16, not 32: set text.components and those of"):
        EXPERTS["aligned"].check_text(config, width)
    fits = make_config("best", **fields, **{"text.components": 8})
    assert source_of(fits, dataset).for_training().shape == (31, 16)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("tfidf:nonsense", "the transform 'nonsense' is unknown: one of none, "),
        ("tfidf:principal:0", "'0' is no number of components"),
        ("tfidf:principal:5:5", "must be TABLE:TRANSFORM:COMPONENTS"),
        (":principal", "must be TABLE:TRANSFORM:COMPONENTS"),
        ("all-MiniLM-L6-v2:principal", "is there twice"),
        ("tfidf','tfidf:principal", "is there twice"),
        ("tfidf:none", "text.transform=none cannot make narrow rows"),
        ("none.npy", "config.text.more: none.npy does not exist"),
        ("own.npy", "own vectors must be"),
    ],
)
def test_further_tables_that_cannot_be_are_one_line(world, tmp_path, more, message, capsys):
    np.save("own.npy", np.ones((3, 3)))
    flags = ["--config.recipe=best", "--config.text.table=", "--workdir=w"]
    flags += [f"--config.text.more=('{more}',)", "--config.mmd.group=4", "--config.train.batch=16"]
    if "twice" not in message:
        flags[1] = f"--config.text.table={world['text.table']}"
    assert main(["main.py", f"--config={ROOT}/configs/demo.py", *flags]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.glob("w/*"))
