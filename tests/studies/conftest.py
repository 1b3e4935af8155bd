"""Studies at toy size share a folder: what one has run, the others use."""

import jax
import pytest

from tests.support.data import write_table
from tests.support.registries import as_demo

EPOCHS = {"pretrain.epochs": 1, "align.epochs": 1, "finetune.epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def world(dataset, text, folder, monkeypatch, make_config):
    """A configuration on the tiny dataset, and the folder that all studies here share.

    Toy runs keep their programs, most of which are the same.
    """
    as_demo(dataset)
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    path = folder / "text.safetensors"
    write_table(path, text[1:], dataset, {"encoder": "random"})

    def config(job, **fields):
        return make_config("best", **EPOCHS | {"text.table": str(path), "job": job, "study.seeds": (0,)} | fields)

    return config
