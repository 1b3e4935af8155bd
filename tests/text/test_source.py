"""Where a run has its text vectors from."""

import numpy as np
from safetensors.numpy import save_file

from pad_jax.run import main
from tests.support.data import ROOT
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
