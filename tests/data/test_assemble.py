"""From events to a dataset that is split by time."""

import numpy as np
import pytest

import pad_jax.data.readers as readers
from pad_jax.errors import UserError
from tests.support.data import sequences
from tests.support.readers import table_config


@pytest.mark.parametrize("cuts", [(None, 1), ((1, 2), 3), (1,), (1, 2, 3), (10**400, 1)])
def test_cuts_that_are_none(tmp_path, monkeypatch, capsys, cuts):
    from pad_jax.run import main

    monkeypatch.chdir(tmp_path)
    assert main(["main.py", "--config=configs/table.py:prepare", f"--config.data.time={cuts}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_split_by_time(tmp_path):
    """Training ends before t_valid, targets are the first events from each cut on."""
    rows = {
        "a": [(1, "x"), (2, "y"), (3, "z"), (10, "x"), (11, "y"), (20, "z"), (21, "x")],
        "b": [(1, "y"), (2, "x"), (3, "y"), (4, "z"), (20, "x")],  # no validation target
        "c": [(5, "z"), (6, "z"), (7, "x"), (12, "y"), (13, "z")],  # no test target
        "d": [(10, "x"), (11, "y"), (12, "z"), (20, "y"), (22, "x")],  # no training event
    }
    lines = [f"{user},{item},{time}\n" for user, events in rows.items() for time, item in events]
    (tmp_path / "events.csv").write_text("user,item,time\n" + "".join(lines))
    (tmp_path / "items.csv").write_text("item,title\nx,X\ny,Y\nz,Z\n")
    data = readers.load(table_config(tmp_path, data={"time": (10, 20)}))
    assert sequences(data) == {
        "a": ["x", "y", "z", "x", "y", "z", "x"],
        "b": ["y", "x", "y", "z", "x"],
        "c": ["z", "z", "x", "y", "z"],
        "d": ["x", "y", "z", "y", "x"],
    }
    assert data.counts.tolist() == [0, 3, 3, 4]
    valid, test = data.split("valid", 4), data.split("test", 4)
    assert [data.user_ids[u] for u in valid.user] == ["a", "c"]  # nothing is known of d before its target
    assert valid.target.tolist() == [1, 2]
    assert valid.inputs.tolist() == [[0, 1, 2, 3], [0, 3, 3, 1]]
    assert [data.user_ids[u] for u in test.user] == ["a", "b", "d"]
    assert test.target.tolist() == [3, 1, 2]
    assert test.inputs.tolist() == [[2, 3, 1, 2], [2, 1, 2, 3], [0, 1, 2, 3]]
    np.testing.assert_array_equal(data.train_windows(3)[0], [[0, 1, 2, 3], [2, 1, 2, 3], [0, 3, 3, 1]])
    few = readers.load(table_config(tmp_path, data={"time": (10, 20), "keep": 4}))
    assert sequences(few)["a"] == ["y", "z", "x", "y", "z", "x"]
    with pytest.raises(UserError, match="the earlier first"):
        readers.load(table_config(tmp_path, data={"time": (20, 10)}))
    with pytest.raises(UserError, match=r"'soon' is not a number, and the times in .*events.csv are"):
        readers.load(table_config(tmp_path, data={"time": ("soon", 10)}))


@pytest.fixture
def unequal(tmp_path):
    """Users with 8, 4, 1 and no events of known items, and one whose only rating is low."""
    rows = [("a", f"i{n}", n, 5) for n in range(8)] + [("b", f"i{n}", n, 5) for n in (3, 2, 1, 0)]
    rows += [("c", "i5", 1, 5), ("d", "gone", 1, 5), ("e", "i1", 1, 1)]
    lines = "".join(f"{user},{item},{time},{rating}\n" for user, item, time, rating in rows)
    (tmp_path / "events.csv").write_text("user,item,time,rating\n" + lines)
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},T{n}\n" for n in range(9)))
    return lambda **data: table_config(tmp_path, rating="rating", data=data)


def test_every_user_of_an_own_table_counts(unequal):
    """Few events train without a target, one event and none are listed; nobody is lost without a word."""
    data = readers.load(unequal(whole=True, keep=0))
    assert list(data.user_ids) == ["a", "b", "c", "d", "e"]
    assert {user: len(items) for user, items in sequences(data).items()} == {"a": 8, "b": 4, "c": 1, "d": 0, "e": 0}
    assert [data.user_ids[u] for u in data.training_users] == ["a", "b"]
    assert data.counts.tolist() == [0, 2, 2, 2, 2, 1, 1, 0, 0, 0]  # all of b, but for a's targets, and not c's only one
    for name, target in (("valid", 7), ("test", 8)):
        split = data.split(name, 3)
        assert (split.user.tolist(), split.target.tolist()) == ([0], [target])
    assert data.account == (
        "15 events read, 13 kept; not used: 1 rated 3 or less (table.above), 1 of items that are not in the "
        "catalogue; users: 1 with fewer than 5 events (data.min_events) train and have no target, 1 with one event are "
        "listed only, 2 without an event get what is popular"
    )
    assert data.until == 7
    paper = readers.load(unequal(keep=6))
    assert list(paper.user_ids) == ["a"]
    assert sequences(paper) == {"a": [f"i{n}" for n in range(2, 8)]}
    assert "2 before the latest 6 of a user (data.keep)" in paper.account
    assert "2 users with fewer than 5 events (data.min_events)" in paper.account


def test_events_before_the_latest_are_masked_and_no_more(unequal):
    data = readers.load(unequal(whole=True, keep=4))
    assert len(data.events) == 13
    assert data.counts.tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0, 0]  # of a: i4 and i5
    split = data.split("test", 5)
    assert split.inputs.tolist() == [[0, 0, 5, 6, 7]]
    assert split.history[0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert data.met_in_training()[0].tolist() == [1, 2, 3, 4, 5, 6]  # no negative is one of them
    assert data.fingerprint != readers.load(unequal(whole=True, keep=0)).fingerprint


def test_users_without_events_split_by_time(unequal):
    data = readers.load(unequal(whole=True, keep=0, time=(4, 6), min_events=3))
    assert [data.user_ids[u] for u in data.training_users] == ["a", "b"]
    assert [data.user_ids[u] for u in data.split("valid", 2).user] == ["a"]
    split = data.split("test", 2)
    assert (split.target.tolist(), split.targets[:].tolist()) == ([7], [[7, 8]])
    assert data.split("valid", 2).targets[:].tolist() == [[5, 6]]
