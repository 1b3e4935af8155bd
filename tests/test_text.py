"""Text encoding with a tiny random encoder, and the text table."""

import ast
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pad_jax.config import TextConfig
from pad_jax.errors import UserError
from pad_jax.text.encode import encode, pool
from pad_jax.text.table import check_settings, read_table, transform, write_table
from tests.conftest import ROOT

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

    rows, manifest = encode(TITLES, TextConfig(encoder=encoder, pooling=pooling, normalize=normalize, batch=2))
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


def test_unknown_encoder_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"config.text.encoder='.*nowhere'"):
        encode(["a"], TextConfig(encoder=str(tmp_path / "nowhere")))


def test_table_round_trip(dataset, tmp_path):
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    path = tmp_path / "text.safetensors"
    write_table(path, rows, dataset, {"encoder": "e"})
    table, manifest = read_table(path, dataset)
    np.testing.assert_array_equal(table[1:], rows)
    assert not table[0].any()
    assert manifest == {"encoder": "e"}
    assert [p.name for p in tmp_path.iterdir()] == ["text.safetensors"]


def test_table_of_other_items_is_refused(dataset, tmp_path):
    from dataclasses import replace

    path = tmp_path / "text.safetensors"
    write_table(path, np.ones((30, 5), np.float32), replace(dataset, item_ids=[f"x{i}" for i in range(30)]), {})
    with pytest.raises(UserError, match="was made for the 30 items"):
        read_table(path, dataset)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tables_with_nan_are_refused(dataset, tmp_path, bad):
    rows = np.ones((30, 5), np.float32)
    rows[7, 2] = bad
    path = tmp_path / "text.safetensors"
    with pytest.raises(UserError, match="item 8 first"):
        write_table(path, rows, dataset, {})
    assert not list(tmp_path.iterdir())
    write_table(path, np.ones((30, 5), np.float32), dataset, {})
    table, metadata = load_file(path), _metadata(path)
    table["text"][8, 2] = bad
    save_file(table, path, metadata=metadata)
    with pytest.raises(UserError, match="item 8 first"):
        read_table(path, dataset)


def _metadata(path):
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_files_that_are_no_tables(dataset, tmp_path, content):
    path = tmp_path / "text.safetensors"
    if content is None:
        save_file({"text": np.zeros((31, 2), np.float32)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="job `encode`"):
        read_table(path, dataset)


def test_transforms():
    random = np.random.default_rng(0)
    table = np.concatenate([np.zeros((1, 6)), random.normal(size=(40, 6)) * np.arange(1, 7) + 3]).astype(np.float32)
    np.testing.assert_array_equal(transform(table, "none", 4), table)
    standard = transform(table, "standardize", 4)
    np.testing.assert_allclose(standard[1:].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standard[1:].std(axis=0), 1, rtol=1e-5)
    principal = transform(table, "principal", 4)
    centred = table[1:] - table[1:].mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[:, :4]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(principal[1:]), np.abs(expected), atol=1e-5)
    assert transform(table, "principal", 9).shape == (41, 9)
    for kind in ("standardize", "principal"):
        assert not transform(table, kind, 4)[0].any()


def test_torch_is_imported_under_text_alone():
    code = "import sys, pad_jax.run; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for path in (ROOT / "pad_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert path.parent.name == "text" or not {n.split(".")[0] for n in names} & {"torch", "transformers"}, path


@pytest.mark.parametrize("missing", ["item_list_sha256", "items", "dataset", "manifest"])
def test_a_header_that_is_not_complete_is_one_line(dataset, tmp_path, missing):
    path = tmp_path / "text.safetensors"
    write_table(path, np.ones((30, 5), np.float32), dataset, {})
    metadata = {k: v for k, v in _metadata(path).items() if k != missing}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(UserError, match="no complete header") as error:
        read_table(path, dataset)
    assert "\n" not in str(error.value)


def test_a_table_of_other_settings_is_refused(dataset, tmp_path):
    path = tmp_path / "text.safetensors"
    manifest = {"encoder": "all-MiniLM-L6-v2", "prompt": "", "revision": "abc"}
    check_settings(path, manifest, TextConfig())
    with pytest.raises(UserError, match=r"config.text.prompt='', not 'query: ': run the job `encode` again"):
        check_settings(path, manifest, TextConfig(prompt="query: "))
    with pytest.raises(UserError, match=r"config.text.revision='abc', not 'abd'"):
        check_settings(path, manifest, TextConfig(revision="abd"))
