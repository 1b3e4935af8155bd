"""The files under examples/."""

import importlib.util
import os

import polars as pl
import pytest

import pad_jax
from tests.support.data import ROOT, sequences


@pytest.mark.slow
def test_the_notebook_runs_from_a_clean_kernel(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    environment = dict(os.environ) | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel(env=environment):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    shown = [str(cell.get("outputs")) for cell in notebook.cells]
    assert "pretrain 3: loss" in "".join(shown)
    assert "is neither a user whose history" in "".join(shown)
    assert "new-1" not in pad_jax.load(tmp_path / "runs" / "table" / "blend-sasrec-ce-best-s0").item_ids
    assert pad_jax.load(tmp_path / "my-model").artifact.retired == {"item-0001"}


@pytest.mark.slow
@pytest.mark.xdist_group("serving")
def test_approximate_lists_are_nearly_the_exact_ones(trained, dataset, tmp_path, capsys):
    pytest.importorskip("usearch", reason="needs pip install usearch")
    spec = importlib.util.spec_from_file_location("approximate", ROOT / "examples" / "approximate.py")
    approximate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(approximate)
    rows = [(user, item, time) for user, own in sequences(dataset).items() for time, item in enumerate(own)]
    pl.DataFrame(rows, ["user", "item", "time"], orient="row").write_csv(tmp_path / "events.csv")
    assert approximate.main(str(trained[1]), str(tmp_path / "events.csv"), 5) > 0.95
    assert "37 lists of 5 from 30 items" in capsys.readouterr().out
    model = pad_jax.load(trained[1]).retire_items(["i1"])
    found = approximate.lists(model, approximate.index_of(model), [["i2"]], 29)
    assert not {"i1", "i2"} & set(found[0])
    assert len(found[0]) == 28
