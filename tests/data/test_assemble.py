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
    np.testing.assert_array_equal(data.train_windows(3), [[0, 1, 2, 3], [2, 1, 2, 3], [0, 3, 3, 1]])
    few = readers.load(table_config(tmp_path, data={"time": (10, 20), "keep": 4}))
    assert sequences(few)["a"] == ["y", "z", "x", "y", "z", "x"]
    with pytest.raises(UserError, match="the earlier first"):
        readers.load(table_config(tmp_path, data={"time": (20, 10)}))
    with pytest.raises(UserError, match=r"'soon' is not a number, and the times in .*events.csv are"):
        readers.load(table_config(tmp_path, data={"time": ("soon", 10)}))
