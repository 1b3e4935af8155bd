"""From raw files to lists on the command line: every reader through prepare, encode, all and recommend."""

import json

import numpy as np
import polars as pl
import pytest

from pad_jax.run import main
from tests.support.data import ROOT, SMALL
from tests.support.raw_data import WORDS, amazon, mind, titles

torch = pytest.importorskip("torch", reason="encoding needs torch")
TRAINING = SMALL | {
    "recipe": "best",
    "pretrain.epochs": 1,
    "align.epochs": 1,
    "finetune.epochs": 1,
    "eval.serve": "last",
    "text.batch": 8,
    "text.keep_in": "float16",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT of width 16 with random weights, as a local directory."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    words = sorted({w for text in WORDS for w in text.lower().replace('"', " ").split()})
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words) + 5, **sizes)).save_pretrained(folder)
    return str(folder)


def write_mind(folder):
    mind(folder, users=40, zipped=True)
    return "mind", {"data.path": folder}


def write_amazon(folder):
    random = np.random.default_rng(1)
    items = {f"B{n:09d}": f"storm, again {n}" for n in range(40)}
    amazon(folder, {f"A{u:03d}": list(random.choice(list(items), random.integers(5, 12))) for u in range(30)}, items)
    return "electronics", {"data.path": folder}


def write_table(folder):
    random = np.random.default_rng(2)
    rows = [(f"u{u}", int(random.integers(40)), 1000 * n + u) for u in range(30) for n in range(8)]
    pl.DataFrame(rows, ["customer", "sku", "ts"], orient="row").write_parquet(folder / "events.parquet")
    goods = {"sku": list(range(42)), "name": titles(random, 42)}
    pl.DataFrame(goods).write_parquet(folder / "goods.parquet")
    columns = {"user": "customer", "item": "sku", "time": "ts", "text": "{name}"}
    files = {"events": folder / "events.parquet", "catalogue": folder / "goods.parquet"}
    fields = {f"table.{name}": value for name, value in (files | columns).items()}
    return "table", fields | {"dataset": "shop", "data.time": "(4000, 6000)"}


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_mind, write_amazon, write_table])
def test_raw_files_become_lists(write, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    name, fields = write(raw)
    fields |= TRAINING | {"text.encoder": encoder}

    def job(which, **more):
        flags = [f"--config.{field}={value}" for field, value in (fields | more).items()]
        file = f"--config={ROOT}/configs/{name}.py:{which}"
        assert main(["main.py", file, *flags, f"--workdir={tmp_path}/w"]) == 0
        return capsys.readouterr().out

    said = job("prepare")
    assert "ends of the frequency buckets" in said
    assert ("not the same data" in said) == (name in ("mind", "electronics"))
    job("encode")
    assert f"{'blend' if name == 'table' else 'pad'} (finetune)" in job("all")
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert results["text_encoder"]["dtype"] == "float16"
    job("recommend", **{"recommend.k": 5})
    lists = pl.read_parquet(tmp_path / "w" / "recommendations.parquet")
    assert lists["user"].n_unique() > 15
    assert lists["rank"].max() == 5
    catalogue = tmp_path / "new.jsonl"
    item = fields.get("table.item", "item")
    title = "name" if name == "table" else "title"
    catalogue.write_text(json.dumps({item: "brand-new", title: "coffee goal"}) + "\n")
    job(
        "recommend",
        **{"recommend.k": 30, "recommend.catalogue": catalogue, "recommend.output": tmp_path / "new.parquet"},
    )
    fresh = pl.read_parquet(tmp_path / "new.parquet").filter(pl.col("item") == "brand-new")
    assert fresh.height
    assert set(fresh["title"]) == {"coffee goal"}
    assert "id" not in set(fresh["expert"])


@pytest.mark.slow
def test_splits_by_time_train_to_the_end(tmp_path, monkeypatch, capsys):
    """An ID-only method: no text is needed, users without a target or a prefix are no trouble."""
    monkeypatch.chdir(tmp_path)
    name, fields = write_table(tmp_path)
    fields |= TRAINING | {"method": "sasrec", "data.time": "(2000, 6500)"}
    flags = [f"--config.{field}={value}" for field, value in fields.items()]
    assert main(["main.py", f"--config={ROOT}/configs/{name}.py", *flags, f"--workdir={tmp_path}/w"]) == 0
    results = json.loads((tmp_path / "w" / "results.json").read_text())
    assert results["valid"]["users"] == 30
    assert results["test"]["users"] == 30
    code = main(["main.py", f"--config={ROOT}/configs/demo.py:prepare", "--config.data.time=(1, 2)"])
    assert code == 2
    assert "needs the times of events, and demo has none" in capsys.readouterr().err
