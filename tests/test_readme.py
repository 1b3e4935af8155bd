"""The README's own examples, and its test command, taken from it as they stand."""

import re
from pathlib import Path

import pytest

from pad_jax.losses.mmd import KERNELS
from pad_jax.methods import METHODS
from pad_jax.run import main
from tests.support.data import ROOT, SMALL, write_table

README = (ROOT / "README.md").read_text()


def example(name):
    return re.search(rf"```python\n# configs/{name}.py\n(.*?)```", README, re.DOTALL).group(1)


@pytest.fixture
def small(dataset, text, tmp_path, monkeypatch):
    """Command-line arguments for a run on the tiny dataset."""
    import numpy as np

    from pad_jax.data import READERS

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(READERS, "demo", lambda _: dataset)
    write_table(tmp_path / "text.safetensors", np.pad(text[1:], ((0, 0), (0, 4))), dataset, {"encoder": "random"})
    fields = SMALL | {"text.table": tmp_path / "text.safetensors", "model.norm": "pre"}
    fields |= {f"{phase}.epochs": 1 for phase in ("pretrain", "align", "finetune")}
    return [f"--config.{name}={value}" for name, value in fields.items()]


def test_an_own_kernel(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(KERNELS, "rational", None)
    (tmp_path / "my_kernel.py").write_text(example("my_kernel"))
    for job in ("pretrain", "align"):
        assert main(["main.py", f"--config={tmp_path}/my_kernel.py:{job}", *small]) == 0, capsys.readouterr().err
    metrics = Path("runs/demo/pad-sasrec-ce-best-s0/align/metrics.jsonl").read_text()
    assert '"mmd"' in metrics


def test_an_own_method(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(METHODS, "duet", None)
    (tmp_path / "my_method.py").write_text(example("my_method"))
    assert main(["main.py", f"--config={tmp_path}/my_method.py", *small]) == 0, capsys.readouterr().err
    output = capsys.readouterr().out
    assert "text cosine" in output
    assert Path("runs/demo/duet-sasrec-ce-best-s0/results.json").exists()


def test_own_data_to_lists(small, tmp_path, capsys):
    """The config file and the notebook lines of the README, on a shop of 12 users."""
    import numpy as np

    (tmp_path / "shop").mkdir()
    events = "".join(f"u{u},item-{(u + 3 * n) % 9},{n}\n" for u in range(12) for n in range(6))
    (tmp_path / "shop" / "events.csv").write_text("user,item,time\n" + events)
    items = "".join(f"item-{n},Thing {n},B{n % 2}\n" for n in range(20))
    (tmp_path / "shop" / "items.csv").write_text("item,title,brand\n" + items)
    vectors = np.random.default_rng(0).normal(size=(21, 16)).astype(np.float32)
    np.save(tmp_path / "own.npy", vectors[:20])
    (tmp_path / "shop.py").write_text(example("shop"))
    own = [f"--config.text.table={tmp_path}/own.npy"]
    for job in ("", ":recommend"):
        assert main(["main.py", f"--config={tmp_path}/shop.py{job}", *small, *own]) == 0, capsys.readouterr().err
    assert Path("runs/shop/pad-sasrec-ce-best-s0/recommendations.parquet").exists()
    lines = re.search(r"```python\n(import pad_jax\n.*?)```", README, re.DOTALL).group(1)
    space = {"vectors": vectors[20:]}
    exec(compile(lines, "README.md", "exec"), space)
    assert space["found"].items.shape == (2, 10)
    assert Path("items.safetensors").exists()
    assert space["more"].item_ids[-1] == "item-new"


def test_the_test_command_is_the_one_of_ci():
    command = re.search(r"\.venv/bin/python (-m pytest[^\n`]*)", README).group(1)
    assert command in (ROOT / ".ci" / "run").read_text()
