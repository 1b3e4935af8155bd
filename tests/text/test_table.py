"""The text table, and own vectors in place of one."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pad_jax.errors import UserError
from pad_jax.text.settings import TextSettings
from pad_jax.text.table import check_settings, read_table
from tests.support.data import write_table


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
    path = tmp_path / "text.safetensors"
    write_table(path, np.ones((30, 5), np.float32), replace(dataset, item_ids=[f"x{i}" for i in range(30)]), {})
    with pytest.raises(UserError, match="was made for the 30 items"):
        read_table(path, dataset)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tables_with_nan_are_refused(dataset, tmp_path, bad):
    rows = np.ones((30, 5), np.float32)
    rows[7, 2] = bad
    path = tmp_path / "text.safetensors"
    write_table(path, rows, dataset, {})
    with pytest.raises(UserError, match="item 8 first"):
        read_table(path, dataset)


def _metadata(path):
    size = int.from_bytes(path.read_bytes()[:8], "little")
    return json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_files_that_are_no_tables(dataset, tmp_path, content):
    path = tmp_path / "text.safetensors"
    if content is None:
        save_file({"text": np.zeros((31, 2), np.float32), "more": np.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="job `encode`"):
        read_table(path, dataset)


@pytest.mark.parametrize("form", ["npy", "npy with row 0", "safetensors", "npy float64"])
def test_own_vectors_are_a_table(dataset, tmp_path, form):
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float64 if "float64" in form else np.float16)
    held = np.concatenate([np.zeros((1, 5), rows.dtype), rows])
    path = tmp_path / f"own.{form.split()[0]}"
    if path.suffix == ".npy":
        np.save(path, held if "row 0" in form else rows)
    else:
        save_file({"embeddings": rows}, path)
    table, manifest = read_table(path, dataset)
    np.testing.assert_array_equal(table, held.astype(table.dtype))
    assert table.dtype == (np.float32 if "float64" in form else np.float16)
    assert manifest == {"encoder": path.name, "own": True}


@pytest.mark.parametrize("rows", [np.ones((29, 5)), np.ones(30), np.ones((30, 5), int), np.array([["a"]] * 30)])
def test_own_vectors_of_other_shapes_are_refused(dataset, tmp_path, rows):
    np.save(tmp_path / "own.npy", rows)
    with pytest.raises(UserError, match=r"own.npy: own vectors must be \[30, d\]|it holds <U1, not numbers"):
        read_table(tmp_path / "own.npy", dataset)
    np.save(tmp_path / "own.npy", np.array([{}] * 30))  # numpy pickles objects
    with pytest.raises(UserError, match=r"own.npy is not a safetensors or .npy file \(it holds object, not numbers"):
        read_table(tmp_path / "own.npy", dataset)


@pytest.mark.parametrize("missing", ["item_list_sha256", "items", "dataset", "manifest"])
def test_a_header_that_is_not_complete_is_one_line(dataset, tmp_path, missing):
    path = tmp_path / "text.safetensors"
    write_table(path, np.ones((30, 5), np.float32), dataset, {})
    metadata = {k: v for k, v in _metadata(path).items() if k != missing}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(UserError, match="its checksum is of other contents"):
        read_table(path, dataset)
    metadata["format"] = "pad_jax text table 1"  # which had none
    del metadata["sha256"]
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(UserError, match="lacks a complete header") as error:
        read_table(path, dataset)
    assert "\n" not in str(error.value)


def test_a_table_of_other_settings_is_refused(dataset, tmp_path):
    path = tmp_path / "text.safetensors"
    manifest = {"encoder": "all-MiniLM-L6-v2", "prompt": "", "revision": "abc"}
    check_settings(path, manifest, TextSettings())
    with pytest.raises(UserError, match=r"config.text.adapters=\[\], not \['a'\]"):
        check_settings(path, manifest | {"adapters": []}, TextSettings(adapters=("a",)))
    with pytest.raises(UserError, match=r"config.text.prompt='', not 'query: ': run the job `encode` again"):
        check_settings(path, manifest, TextSettings(prompt="query: "))
    with pytest.raises(UserError, match=r"config.text.revision='abc', not 'abd'"):
        check_settings(path, manifest, TextSettings(revision="abd"))


def test_the_same_table_is_the_same_bytes_and_no_flipped_byte_is_used(dataset, tmp_path):
    rows = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    for name in ("a", "b"):
        write_table(tmp_path / name, rows, dataset, {"encoder": "random"})
    whole = (tmp_path / "a").read_bytes()
    assert whole == (tmp_path / "b").read_bytes()
    for place in range(0, len(whole), 5):
        (tmp_path / "b").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError):
            read_table(tmp_path / "b", dataset)
