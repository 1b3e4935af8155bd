"""Prime Pantry: what is accepted, and what is refused in one line."""

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pad_jax.data import pantry
from pad_jax.data.dataset import frequency_buckets, frequency_group
from pad_jax.errors import UserError
from tests.support.data import default_config
from tests.support.readers import in_folder

METADATA = 'asin,title\nA,Tea\nB,"Coffee, dark"\nC,Soap\n'

HISTORY = "row,user,history\n0,u,\"['A', 'B', 'A', 'C', 'B']\"\n1,v,\"['C', 'C', 'B', 'A', 'A']\"\n"

FREQUENCY = "id,fre\n0,0\n1,2\n2,2\n3,2\n"


@pytest.fixture
def folder(tmp_path):
    def write(metadata=METADATA, history=HISTORY, frequency=FREQUENCY):
        for name, content in ((pantry.METADATA, metadata), (pantry.HISTORY, history), (pantry.FREQUENCY, frequency)):
            if content is not None:
                (tmp_path / name).write_text(content)
        return in_folder("pantry", tmp_path)

    return write


def test_pantry_format(folder):
    data = pantry.load(folder())
    assert data.items == 3
    assert data.titles[1] == "Coffee, dark"
    np.testing.assert_array_equal(data.events, [1, 2, 1, 3, 2, 3, 3, 2, 1, 1])
    np.testing.assert_array_equal(data.counts, [0, 2, 2, 2])


def test_latest_events_are_kept(folder, tmp_path):
    folder()
    data = pantry.load(in_folder("pantry", tmp_path, keep=3, min_events=3))
    np.testing.assert_array_equal(data.events, [1, 3, 2, 2, 1, 1])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"history": HISTORY.replace("user", "person")}, r"history.csv, line 1: no column 'user'"),
        ({"metadata": METADATA.replace("title", "name")}, r"metadata_.*, line 1: no column 'title'"),
        (
            {"history": HISTORY.replace("'C', 'B'", "'D', 'B'")},
            r"history.csv, line 2: item 'D' has no row in .*metadata",
        ),
        ({"history": HISTORY.replace("'C', 'C', ", "")}, r"history.csv, line 3: user 'v' has 3 events, fewer than 5"),
        ({"metadata": METADATA.replace("Soap", " ")}, r"metadata_.*, line 4: item 'C' has an empty title"),
        ({"metadata": METADATA + "A,Again\n"}, r"metadata_.*, line 5: item 'A' appears twice in the file"),
        (
            {"history": HISTORY.replace("\"['A'", "\"__import__('os').getcwd() or ['A'")},
            r"line 2: the history is not a Python",
        ),
        ({"history": HISTORY.replace("'A', 'B', 'A'", "1, 2, 3")}, r"line 2: the history is not a list of item ids"),
        ({"history": HISTORY + "2,w\n"}, r"history.csv, line 4: the row does not have the header's columns"),
        ({"frequency": FREQUENCY.replace("3,2", "3,1")}, r"fre.csv, line 5: item 3 has count 1, the histories say 2"),
        ({"frequency": FREQUENCY.replace("3,2", "9,1")}, r"fre.csv, line 5: item 9 has count 1, .* no such item"),
        ({"frequency": FREQUENCY.replace("3,2", "3,x")}, r"fre.csv, line 5: id and fre must be whole numbers"),
        ({"history": ""}, r"history.csv, line 1: no column 'user'"),
        ({"history": "row,user,history\n"}, r"history.csv has no users"),
    ],
)
def test_files_that_are_wrong_say_where(folder, files, message):
    with pytest.raises(UserError, match=message) as error:
        pantry.load(folder(**files))
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), which=st.sampled_from([0, 1, 2]))
def test_any_bytes_end_in_one_line(folder, tmp_path, content, which):
    """Whatever a file holds, the reader returns a dataset or raises a UserError of one line."""
    config = folder()
    (tmp_path / (pantry.HISTORY, pantry.METADATA, pantry.FREQUENCY)[which]).write_bytes(content)
    message = ""
    try:
        pantry.load(config)
    except UserError as error:
        message = str(error)
    assert "\n" not in message


@pytest.fixture
def published(server, monkeypatch, tmp_path):
    """The three files on the server, their digests as the known ones, and no data at hand."""
    served, url = server
    contents = {pantry.METADATA: METADATA, pantry.HISTORY: HISTORY, pantry.FREQUENCY: FREQUENCY}
    for name, content in contents.items():
        (served / name).write_text(content)
        monkeypatch.setitem(pantry.SHA256, name, hashlib.sha256(content.encode()).hexdigest())
    monkeypatch.setenv("PAD_JAX_DATA", str(tmp_path / "data"))
    return served, url


def test_missing_files_are_downloaded_and_checked(published, tmp_path):
    served, url = published
    assert pantry.load(default_config("pantry"), url).items == 3
    assert {p.name for p in (tmp_path / "data" / "prime_pantry").iterdir()} == set(pantry.SHA256)
    for name in pantry.SHA256:
        (served / name).write_text("changed")
    assert pantry.load(default_config("pantry"), url).items == 3  # not fetched again


@pytest.mark.parametrize("name", pantry.SHA256)
def test_a_download_of_another_content_is_refused(published, tmp_path, name):
    served, url = published
    (served / name).write_text("tampered")
    with pytest.raises(UserError, match=f"{name} is missing and could not be downloaded"):
        pantry.load(default_config("pantry"), url)
    assert not (tmp_path / "data" / "prime_pantry" / name).exists()


def test_without_a_network_one_line_says_where_files_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PAD_JAX_DATA", str(tmp_path / "data"))
    with pytest.raises(UserError, match=f"put the files {pantry.HISTORY}.* into {tmp_path}/data/prime_pantry") as error:
        pantry.load(default_config("pantry"), "http://127.0.0.1:9/")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded_into_a_folder_that_was_named(published, tmp_path):
    with pytest.raises(UserError, match=r"history.csv is missing: put .* or correct --config.data.path"):
        pantry.load(in_folder("pantry", tmp_path / "typo"), published[1])
    assert not (tmp_path / "typo").exists()


def test_prime_pantry(pantry_config):
    """The numbers that anyone can count in the authors' files."""
    data = pantry.load(pantry_config)
    assert (data.users, data.items, len(data.events)) == (12871, 8347, 115004)
    assert data.counts.sum() == 89262
    bucket, cuts = frequency_buckets(data.counts, 10)
    assert cuts == [35, 100, 205, 361, 585, 898, 1357, 2074, 3348]
    target = data.split("test", 20).target
    assert np.bincount(bucket[target])[1:].tolist() == [530, 662, 726, 806, 896, 1062, 1193, 1344, 1847, 3805]
    assert {g: int(m.sum()) for g, m in frequency_group(data.counts[target]).items()} == {
        "warm": 2600,
        "median": 5850,
        "cold": 3608,
        "unseen": 813,
    }
    in_history = {
        n: int((s.history == s.target[:, None]).any(axis=1).sum())
        for n, s in ((n, data.split(n, 20)) for n in ("valid", "test"))
    }
    assert in_history == {"valid": 454, "test": 336}
