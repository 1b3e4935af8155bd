"""A trained model on disk."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax import sealed
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
    for damaged in (b"", content[:100], content[:-50], content[:-1] + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"is not a safetensors file|is damaged: its checksum"):
            pad_jax.load(trained[1])


NONSENSE = {
    "about": [
        {"experts": ["id"] * 9},
        {"experts": 3},
        {"experts": ["nobody"]},
        {"gate": "none"},
        {"parts": [["expert", "mine", "mine.py"]]},
        {"parts": 5},
        {"transform": "nobody"},
        {"text_width": 10**12},
        {"text_width": -1},
        {"config": {}},
        {"config": [1]},
        {"identity": 3},
        {"manifest": None},
        {"deep": [[[]]]},
        {"trained": 10**6},
        {"trained": [1]},
        {"retired": 3},
    ],
    "tensors": [
        lambda name, x: None,
        lambda name, x: x[..., :1] if x.ndim else x.reshape(1),
        lambda name, x: x.astype(np.int8),
        lambda name, x: np.ones(2 * x.ndim * [1] or [3], np.float32),
        lambda name, x: np.zeros((0, *x.shape), x.dtype),
    ],
}


@pytest.mark.slow
def test_nonsense_with_a_right_checksum_is_one_line(trained):
    """Whoever makes a model by hand can seal it; it is refused when it is loaded, or it is a model."""
    folder = trained[1] / "model"
    path = folder / "model.safetensors"
    content = path.read_bytes()
    arrays, about = sealed.read_tensors(path, 2, "")

    def refused(tensors, what):
        path.write_bytes(sealed.tensors(tensors, what))
        try:
            pad_jax.load(trained[1]).recommend([["i1", "i2"]], k=3)
        except UserError as error:
            return str(error)
        return ""

    for change in NONSENSE["about"]:
        message = refused(arrays, about | change)
        assert "\n" not in message
        assert message or change.keys() <= {"manifest", "deep"}, change
    some = [*list(arrays)[::7], "gates", "counts"]
    for name, change in ((name, change) for name in some for change in NONSENSE["tensors"]):
        changed = {n: x for n, x in arrays.items() if n != name}
        new = change(name, arrays[name])
        message = refused(changed if new is None else changed | {name: new}, about)
        assert "\n" not in message
        assert message or name.startswith(("tables", "counts", "transform")), name
    path.write_bytes(content)
    assert refused(arrays, about) == ""
    items = pl.read_parquet(folder / "items.parquet")
    for other in (items[::-1], items[:5], items.select("item"), items.with_columns(item=pl.lit(None, pl.String))):
        other.write_parquet(folder / "items.parquet")
        with pytest.raises(UserError, match=r"items.parquet is damaged: its checksum"):
            pad_jax.load(trained[1])
