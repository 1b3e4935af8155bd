"""Checksums: what is read is what was written, or one line says what is wrong."""

import json

import numpy as np
import pytest

from pad_jax import sealed
from pad_jax.sealed import DamagedError

CONTENT = {"format": 2, "b": [1, 2.5, None], "a": {"x": "ü"}}
ARRAYS = {
    "z": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/b": np.float32(1.5).reshape(()),
    "n": np.zeros(0, np.int32),
}


def test_json_comes_back_and_is_the_same_bytes(tmp_path):
    sealed.write_json(tmp_path / "x.json", CONTENT)
    assert sealed.read_json(tmp_path / "x.json", 2, "cure") == CONTENT
    sealed.write_json(tmp_path / "y.json", sealed.read_json(tmp_path / "x.json", 2, "cure"))
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()


def test_every_flipped_byte_of_json_is_found(tmp_path):
    path = tmp_path / "x.json"
    sealed.write_json(path, CONTENT)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = sealed.read_json(path, 2, "cure")
        except DamagedError:
            continue
        assert found == CONTENT, place  # a blank between two fields


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON"),
        ("[1]", "holds no JSON object"),
        ("{" * 100_000, "is not JSON"),
        (json.dumps({"format": 2}), "its checksum is of other contents"),
        (json.dumps({"format": 3, "sha256": ""}), "has format '3'"),
        (json.dumps({"format": "x" * 1000}), "has format"),
        (json.dumps({"format": [2]}), "has format"),
    ],
)
def test_json_that_is_none_of_ours(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DamagedError, match=message) as error:
        sealed.read_json(tmp_path / "x.json", 2, "cure")
    assert len(str(error.value)) < 400


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "loop", "missing"):
        with pytest.raises(DamagedError, match=r"is not a file|cannot be read"):
            sealed.read_bytes(tmp_path / name, "cure")


def test_earlier_formats_are_unverified_once(tmp_path, capsys):
    (tmp_path / "x.json").write_text(json.dumps({"format": 1, "a": 2}))
    for _ in range(2):
        assert sealed.read_json(tmp_path / "x.json", 2, "cure") == {"format": 1, "a": 2}
    assert capsys.readouterr().out.count("unverified") == 1


def test_tensors_come_back_and_are_the_same_bytes(tmp_path):
    about = {"format": 2, "of": "run"}
    content = sealed.tensors(ARRAYS, about)
    assert content == sealed.tensors(dict(reversed(ARRAYS.items())), dict(reversed(about.items())))
    (tmp_path / "x").write_bytes(content)
    arrays, found = sealed.read_tensors(tmp_path / "x", 2, "cure")
    assert found == about
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)


def test_every_flipped_byte_of_tensors_is_found(tmp_path):
    whole = sealed.tensors(ARRAYS, {"format": 2, "of": "run"})
    path = tmp_path / "x"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            arrays, about = sealed.read_tensors(path, 2, "cure")
        except DamagedError:
            continue
        assert about == {"format": 2, "of": "run"}, place
        assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS), place
