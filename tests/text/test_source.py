"""Where a run has its text vectors from."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from pad_jax.errors import UserError
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
    named = TextSource(make_config(**{"text.table": str(usual)}), other)
    with pytest.raises(UserError, match="was made from other texts of these items"):
        _ = named.table
