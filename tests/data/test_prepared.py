"""What was read is not read again, and never stale."""

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl

import pad_jax.data.readers as readers
import pad_jax.data.table as table
from pad_jax.data import prepared
from tests.support.readers import EVENTS, table_config


def test_prepared_data_are_read_again_and_never_stale(shop, capsys, monkeypatch):
    folder = shop()
    config = table_config(folder)
    first = readers.load(config)
    (place,) = (prepared.ROOT / "shop").iterdir()
    assert pl.read_parquet(place / "items.parquet")["item"].to_list() == list(first.item_ids)
    monkeypatch.setattr(table, "read", None)  # nothing is read again
    again = readers.load(config)
    assert again.fingerprint == first.fingerprint
    assert again.note == first.note
    monkeypatch.undo()
    monkeypatch.setattr(prepared, "ROOT", place.parent.parent)
    shop(EVENTS.replace("u3,i3,3\n", "u3,i5,3\n"))
    changed = readers.load(config)
    assert changed.fingerprint != first.fingerprint  # the same file name and settings, other contents
    assert readers.load(replace(config, data=replace(config.data, keep=5))).fingerprint != changed.fingerprint
    count = len(list(place.parent.iterdir()))
    code = Path(shutil.copytree(Path(prepared.__file__).parent, folder / "code"))
    with monkeypatch.context() as patch:
        patch.setattr(prepared, "__file__", str(code / "prepared.py"))
        readers.load(config)
        assert len(list(place.parent.iterdir())) == count  # the same code elsewhere
        (code / "tables.py").write_text("")
        readers.load(config)
        assert len(list(place.parent.iterdir())) == count + 1
    shop()
    (place / "events.parquet").write_bytes((place / "events.parquet").read_bytes()[:40])
    assert readers.load(config).fingerprint == first.fingerprint
    assert "is damaged and made again" in capsys.readouterr().out
    pl.DataFrame({"item_number": first.events[::-1]}).write_parquet(place / "events.parquet")
    assert readers.load(config).fingerprint == first.fingerprint


def test_a_dataset_is_prepared_whole_or_not_at_all(shop, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pad_jax.files.os.replace", full)
    assert readers.load(table_config(shop())).users == 4
    assert "will be read again next time" in capsys.readouterr().out
    assert not list((prepared.ROOT / "shop").iterdir())
