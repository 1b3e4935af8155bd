"""Text encoding with a tiny random encoder."""

import ast
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pad_jax.errors import UserError
from pad_jax.text import encode as encoding
from pad_jax.text.encode import encode, encode_table, load_encoder, pool, tokenize
from pad_jax.text.settings import TextSettings
from pad_jax.text.table import TableWriter, read_table
from tests.support.data import ROOT

torch = pytest.importorskip("torch", reason="encoding needs torch")

TITLES = ["green tea", "a very long title about roasted coffee beans", "tea", "dog food", "green green tea tea", "tea"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT of width 16 with random weights, as a local directory."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({w for t in TITLES for w in t.split()})]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_each_title_is_encoded_as_if_alone(encoder, pooling, normalize):
    import transformers

    rows, manifest = encode(TITLES, TextSettings(encoder=encoder, pooling=pooling, normalize=normalize, batch=2))
    tokenizer, model = (
        transformers.AutoTokenizer.from_pretrained(encoder),
        transformers.AutoModel.from_pretrained(encoder),
    )
    for title, row in zip(TITLES, rows, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(title, return_tensors="pt")).last_hidden_state[0].numpy()
        expected = {"mean": states.mean(axis=0), "cls": states[0], "last": states[-1]}[pooling]
        expected = expected / np.linalg.norm(expected) if normalize else expected
        np.testing.assert_allclose(row, expected, atol=2e-6)
    np.testing.assert_array_equal(rows[2], rows[5])  # equal titles, equal vectors
    assert manifest["pooling"] == pooling
    assert manifest["encoder"] == encoder


def test_pooling_knows_left_padding():
    states = torch.arange(12.0).reshape(1, 4, 3)
    mask = torch.tensor([[0, 1, 1, 0]])
    assert pool(states, mask, "mean").tolist() == [[4.5, 5.5, 6.5]]
    assert pool(states, mask, "cls").tolist() == [[3, 4, 5]]
    assert pool(states, mask, "last").tolist() == [[6, 7, 8]]


def test_titles_are_cut_to_what_the_tokenizer_allows(encoder):
    """MPNet has two more positions than it can use."""
    loaded = load_encoder(TextSettings(encoder=encoder))
    loaded.tokenizer.model_max_length = 4
    tokens = tokenize(loaded, ["green tea dog food tea", "tea"], TextSettings(encoder=encoder))
    assert np.diff(tokens.starts).tolist() == [4, 3]


def test_unknown_encoder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.text.encoder='.*nowhere'"):
        encode(["a"], TextSettings(encoder=str(tmp_path / "nowhere")))


class Killed(BaseException):
    """What ends a run without being caught."""


@pytest.mark.parametrize(
    ("keep_in", "after"),
    [("float32", 4), *(pytest.param(*p, marks=pytest.mark.slow) for p in (("float32", 9), ("float16", 1)))],
)
def test_encoding_goes_on_where_it_was_killed(encoder, dataset, tmp_path, monkeypatch, keep_in, after):
    config = TextSettings(encoder=encoder, batch=3, keep_in=keep_in)
    words = ["green", "tea", "long", "dog", "food", "title"]
    titles = [" ".join(np.random.default_rng(n).choice(words, n % 7 + 1)) for n in range(30)]
    titles[20] = titles[3]
    data = replace(dataset, titles=titles)
    encode_table(tmp_path / "whole.safetensors", data, config)
    done = []

    def counted(*args, **kwargs):
        for batch in vectors(*args, **kwargs):
            done.append(len(batch[0]))
            if len(done) == after + 2:  # one batch more tells the width
                raise Killed
            yield batch

    vectors = encoding.vectors
    monkeypatch.setattr(TableWriter, "EVERY", 0.0)
    monkeypatch.setattr(encoding, "vectors", counted)
    with pytest.raises(Killed):
        encode_table(tmp_path / "killed.safetensors", data, config)
    assert not (tmp_path / "killed.safetensors").exists()
    before = len(done)
    encode_table(tmp_path / "killed.safetensors", data, config)
    assert len(done) - before == 1 + 10 - after  # 29 different titles in batches of 3, none of them again
    whole, again = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("whole", "killed"))
    assert whole == again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.safetensors", "whole.safetensors"]
    table, manifest = read_table(tmp_path / "whole.safetensors", data)
    assert table.dtype == keep_in == manifest["dtype"]
    np.testing.assert_allclose(table[1:], encode(titles, config)[0], atol=1e-6 if keep_in == "float32" else 1e-3)


@pytest.mark.slow
def test_what_others_left_is_not_gone_on_with(encoder, dataset, tmp_path, monkeypatch):
    """Other titles, settings or a damaged mark: from the start."""
    data = replace(dataset, titles=[f"tea {n}" for n in range(30)])
    path = tmp_path / "t.safetensors"
    config = TextSettings(encoder=encoder, batch=4)
    monkeypatch.setattr(TableWriter, "EVERY", 0.0)
    encode_table(path, data, config)
    expected = path.read_bytes()
    mark, partial = tmp_path / "t.safetensors.partial.json", tmp_path / "t.safetensors.partial"
    for damage in ("{}", "no json", '{"done": 3}', json.dumps({"done": 3, "header": "x"})):
        path.unlink()
        partial.write_bytes(b"x" * len(expected))
        mark.write_text(damage)
        encode_table(path, data, config)
        assert path.read_bytes() == expected
        assert not mark.exists()


def test_a_mark_says_nothing_of_what_another_run_has_begun(encoder, dataset, tmp_path, monkeypatch):
    """Killed after a mark, begun anew with other settings and killed before its own, and the first again."""
    data = replace(dataset, titles=[f"tea {n}" for n in range(30)])
    first = TextSettings(encoder=encoder, batch=4)
    second = replace(first, pooling="last")  # a file of the same size
    encode_table(tmp_path / "whole.safetensors", data, first)
    path = tmp_path / "t.safetensors"
    vectors = encoding.vectors
    for config, every in ((first, 0.0), (second, 1000.0)):

        def killed(*args, **kwargs):
            for number, batch in enumerate(vectors(*args, **kwargs)):
                if number == 3:
                    raise Killed
                yield batch

        monkeypatch.setattr(TableWriter, "EVERY", every)
        monkeypatch.setattr(encoding, "vectors", killed)
        with pytest.raises(Killed):
            encode_table(path, data, config)
    monkeypatch.setattr(encoding, "vectors", vectors)
    encode_table(path, data, first)
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_encoders_that_are_broken_are_one_line(encoder, tmp_path):
    import safetensors.torch

    def broken(name):
        shutil.copytree(encoder, tmp_path / name)
        return tmp_path / name

    weights = safetensors.torch.load_file(f"{encoder}/model.safetensors")
    cut = broken("cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    fewer = {k: v for k, v in weights.items() if "layer.0" not in k}
    safetensors.torch.save_file(fewer, broken("fewer") / "model.safetensors", {"format": "pt"})
    wider = {k: torch.cat([v, v]) if "word_embeddings" in k else v for k, v in weights.items()}
    safetensors.torch.save_file(wider, broken("wider") / "model.safetensors", {"format": "pt"})
    (broken("config") / "config.json").write_text("[]")
    foreign = broken("foreign")
    (foreign / "code.py").write_text("raise SystemExit('foreign code has run')")
    settings = json.loads((foreign / "config.json").read_text()) | {"model_type": "other"}
    settings["auto_map"] = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    (foreign / "config.json").write_text(json.dumps(settings))
    for name in ("cut", "fewer", "wider", "config", "foreign"):
        with pytest.raises(UserError, match="is not an encoder that can be loaded") as error:
            encode(["tea"], TextSettings(encoder=str(tmp_path / name)))
        assert "\n" not in str(error.value)


def test_a_vector_that_is_no_number_names_its_item(encoder, dataset, tmp_path, monkeypatch):
    data = replace(dataset, titles=[f"tea {n}" for n in range(29)] + ["dog food food dog tea"])

    def broken(*args, **kwargs):
        for index, rows in vectors(*args, **kwargs):
            yield index, np.where(index[:, None] == 29, np.float32(1e6), rows)

    vectors = encoding.vectors
    monkeypatch.setattr(encoding, "vectors", broken)
    with pytest.raises(UserError, match=r"item 30 first; encode again"):
        encode_table(tmp_path / "t.safetensors", data, TextSettings(encoder=encoder, keep_in="float16"))
    assert not (tmp_path / "t.safetensors").exists()
    encode_table(tmp_path / "t.safetensors", data, TextSettings(encoder=encoder))


@pytest.mark.slow
def test_torch_is_imported_under_text_alone():
    code = "import sys, pad_jax.run; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for path in (ROOT / "pad_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert path.parent.name == "text" or not {n.split(".")[0] for n in names} & {"torch", "transformers"}, path
