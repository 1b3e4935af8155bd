"""Where files are looked for."""

from pad_jax.data.files import data_folder
from pad_jax.data.settings import DataSettings


def test_where_data_are_looked_for(monkeypatch):
    monkeypatch.setenv("PAD_JAX_DATA", "/somewhere")
    assert str(data_folder(DataSettings(), "prime_pantry")) == "/somewhere/prime_pantry"
    assert str(data_folder(DataSettings(path="/here"), "prime_pantry")) == "/here"
    monkeypatch.delenv("PAD_JAX_DATA")
    assert str(data_folder(DataSettings(), "prime_pantry")) == "data/prime_pantry"
