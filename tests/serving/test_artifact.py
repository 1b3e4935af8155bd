"""A trained model on disk."""

import subprocess
import sys

import pytest

import pad_jax
from pad_jax.errors import UserError
from tests.support.data import ROOT

pytestmark = pytest.mark.xdist_group("serving")  # its tests share trainings


@pytest.mark.slow
def test_loading_needs_neither_data_nor_torch(trained, monkeypatch, tmp_path):
    (tmp_path / "text.safetensors").unlink()
    code = (
        "import sys, pad_jax; model = pad_jax.load(sys.argv[1]); print(model.recommend([['i1', 'i2']], k=3).items[0]); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(trained[1])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("'i") == 3


@pytest.mark.slow
def test_a_model_that_is_not_there_or_damaged(trained, tmp_path):
    with pytest.raises(UserError, match="is missing: train the last phase"):
        pad_jax.load(tmp_path / "nowhere")
    path = trained[1] / "model" / "model.safetensors"
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-50]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            pad_jax.load(trained[1])
