"""What users are like, and who is like whom: nothing behind the training prefix, never oneself."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from pad_jax import sealed
from pad_jax.errors import UserError
from pad_jax.sealed import DamagedError
from pad_jax.text import users
from pad_jax.text.users import mean_profiles, nearest, profile_texts, text_profiles


def test_top_two_of_a_known_case():
    i, j = np.mgrid[:4, :3]
    with jax.enable_x64(True):
        assert nearest(np.sin(1.0 + i + 2 * j), 2).tolist() == [[1, 2], [0, 2], [3, 1], [2, 1]]


def test_nobody_is_like_himself_and_blocks_do_not_matter():
    """More users than are looked at at once, every third one of equal profile; against sorting."""
    rows = np.random.default_rng(0).normal(size=(3000, 4)).astype(np.float32)
    rows[::3] = rows[0]
    found = nearest(5 * rows, 3)
    assert not (found == np.arange(3000)[:, None]).any()
    assert (found[0] % 3 == 0).all()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for user in (1, 2500, 2999):
        cosine = unit @ unit[user]
        cosine[user] = -2
        np.testing.assert_allclose(cosine[found[user]], np.sort(cosine)[:-4:-1], atol=1e-6)


def changed(dataset):
    """The dataset with other validation and test events."""
    place = np.arange(len(dataset.events))
    behind = place >= np.repeat(dataset.cuts.train_end, np.diff(dataset.starts))
    assert behind.sum() == 2 * dataset.users
    return replace(dataset, events=np.where(behind, 1 + dataset.events % 30, dataset.events).astype(np.int32))


def test_no_event_behind_the_prefix_changes_a_profile(dataset, text):
    other = changed(dataset)
    assert other.fingerprint != dataset.fingerprint
    np.testing.assert_array_equal(mean_profiles(other, text), mean_profiles(dataset, text))
    assert profile_texts(other) == profile_texts(dataset)


def test_profiles_against_loops(dataset, text):
    """The whole prefix, of unit length; the newest title first. Masked events are no part of it."""
    first = dataset.starts[:-1].copy()
    first[0] += 1
    masked = replace(dataset, cuts=dataset.cuts._replace(first=first))
    found, texts = mean_profiles(masked, text), profile_texts(masked)
    for place, user in enumerate(masked.training_users):
        items = masked.events[masked.cuts.first[user] : masked.cuts.train_end[user]]
        mean = text[items].mean(axis=0)
        np.testing.assert_allclose(found[place], mean / np.linalg.norm(mean), atol=1e-5)
        assert texts[place] == "; ".join(f"title {item - 1}" for item in items[::-1])


def test_vectors_of_texts_are_made_once_and_are_of_this_dataset(dataset, make_config, tmp_path, monkeypatch):
    calls = []

    def encode(texts, config):
        calls.append(texts)
        return np.random.default_rng(len(calls)).normal(size=(len(texts), 5)).astype(np.float32), {"encoder": "fake"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(users.encode, "encode", encode)
    monkeypatch.setattr(users.encode, "available", lambda: True)
    config = make_config(**{"llmesr.profile": "text"})
    first = users.profiles(config, dataset, np.zeros((31, 0), np.float32))
    np.testing.assert_array_equal(text_profiles(config, dataset), first)
    assert calls == [profile_texts(dataset)]
    (path,) = (tmp_path / "runs/demo").glob("*.safetensors")
    text_profiles(config, changed(dataset))
    text_profiles(make_config(**{"text.max_length": 7}), dataset)
    assert len(calls) == 3
    ours = path.read_bytes()
    other = next(p for p in path.parent.glob("*.safetensors") if p != path and b'"max_length\\": 512' in p.read_bytes())
    path.write_bytes(other.read_bytes())
    with pytest.raises(DamagedError, match=r"was made for another fingerprint; remove it, and it is made again"):
        text_profiles(config, dataset)
    path.write_bytes(ours[:-1] + bytes([ours[-1] ^ 1]))
    with pytest.raises(DamagedError, match="checksum is of other contents"):
        text_profiles(config, dataset)
    arrays, about = {"users": first[:-1]}, sealed.read_tensors(other, 1, "")[1]
    path.write_bytes(sealed.tensors(arrays, about))
    with pytest.raises(DamagedError, match="does not hold 37 vectors"):
        users.read_profiles(path, {}, 37)
    path.unlink()
    monkeypatch.setattr(users.encode, "available", lambda: False)
    with pytest.raises(UserError, match=r"there is no runs/demo/users-\w+\.safetensors and no torch to make them"):
        text_profiles(config, dataset)
