"""The examples of README and docs that are no files of their own, and the test command, as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

import pad_jax
from pad_jax.run import main
from tests.support.data import ROOT, SMALL, write_table
from tests.support.registries import as_demo, restored

README, DOCS = (ROOT / "README.md").read_text(), ROOT / "docs"


def example(page, name):
    """The config file NAME.py that a page shows."""
    return re.search(rf"```python\n# configs/{name}\.py\n(.*?)```", (DOCS / page).read_text(), re.DOTALL).group(1)


@pytest.fixture
def small(dataset, text, tmp_path, monkeypatch):
    """Command-line arguments for a run on the tiny dataset."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "text.safetensors", np.pad(text[1:], ((0, 0), (0, 4))), dataset, {"encoder": "random"})
    fields = SMALL | {"text.table": tmp_path / "text.safetensors", "sasrec.norm": "pre"}
    fields |= {f"{phase}.epochs": 1 for phase in ("pretrain", "align", "finetune")}
    with restored():
        as_demo(dataset)
        yield [f"--config.{name}={value}" for name, value in fields.items()]


@pytest.mark.slow
def test_an_own_kernel(small, tmp_path, capsys):
    (tmp_path / "my_kernel.py").write_text(example("extend.md", "my_kernel"))
    for job in ("pretrain", "align"):
        assert main(["main.py", f"--config={tmp_path}/my_kernel.py:{job}", *small]) == 0, capsys.readouterr().err
    metrics = Path("runs/demo/pad-sasrec-ce-best-s0/align/metrics.jsonl").read_text()
    assert '"mmd"' in metrics


@pytest.mark.slow
def test_an_own_transform(small, tmp_path, capsys):
    (tmp_path / "my_transform.py").write_text(example("extend.md", "my_transform"))
    flags = ["--config.method=morec", "--config.loss=ce"]
    code = main(["main.py", f"--config={tmp_path}/my_transform.py:pretrain", *small, *flags])
    assert code == 0, capsys.readouterr().err
    transform = pad_jax.load("runs/demo/morec-sasrec-ce-paper-s0").artifact.text.transform
    assert transform.kind == "centred"
    rows = np.arange(32.0).reshape(2, 16)
    np.testing.assert_allclose(transform(rows), rows - transform.arrays["mean"])


@pytest.mark.slow
def test_own_data_to_lists(small, tmp_path, capsys):
    """The config file and the notebook lines of the docs, on a shop of 12 users."""
    (tmp_path / "shop").mkdir()
    events = "".join(f"u{u},item-{(u + 3 * n) % 9},{n}\n" for u in range(12) for n in range(6))
    (tmp_path / "shop" / "events.csv").write_text("user,item,time\n" + events)
    items = "".join(f"item-{n},Thing {n},B{n % 2}\n" for n in range(20))
    (tmp_path / "shop" / "items.csv").write_text("item,title,brand\n" + items)
    vectors = np.random.default_rng(0).normal(size=(21, 16)).astype(np.float32)
    np.save(tmp_path / "own.npy", vectors[:20])
    (tmp_path / "shop.py").write_text(example("data.md", "shop"))
    own = [f"--config.text.table={tmp_path}/own.npy"]
    for job in ("", ":recommend"):
        assert main(["main.py", f"--config={tmp_path}/shop.py{job}", *small, *own]) == 0, capsys.readouterr().err
    assert Path("runs/shop/blend-sasrec-ce-best-s0/recommendations.parquet").exists()
    staged = "--config.method=staged"  # whose model the page loads
    assert main(["main.py", f"--config={tmp_path}/shop.py", *small, *own, staged]) == 0, capsys.readouterr().err
    page = (DOCS / "serving.md").read_text()
    lines = re.search(r"```python\n(import pad_jax\n.*?)```", page, re.DOTALL).group(1)
    space = {"vectors": vectors[20:]}
    exec(compile(lines, "serving.md", "exec"), space)
    assert space["found"].items.shape == (2, 10)
    assert Path("items.safetensors").exists()
    assert space["more"].item_ids[-1] == "item-new"


def test_the_test_command_is_the_one_of_ci():
    command = re.search(r"\.venv/bin/python (-m pytest[^\n`]*)", README).group(1)
    assert command in (ROOT / ".ci" / "run").read_text()
