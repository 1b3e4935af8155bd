"""Services over small models with random weights."""

from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from pad_jax.service import settings_from
from pad_jax.service.app import Service, application
from pad_jax.service.models import sources
from tests.support.data import small_config
from tests.support.served import random_model

MARKUP = '<img src=x onerror="window.hurt=1"> & <b>bold</b>'
TITLES = [f"Green tea {n}" for n in range(10)] + [MARKUP] + [f"Crème brûlée {n}" for n in range(10)] + ["Teapot"]


@pytest.fixture(scope="session")
def models():
    """By name; the second has other weights."""
    return {name: random_model(small_config(), TITLES, seed) for seed, name in enumerate(("first", "second"))}


@pytest.fixture
def folders(models, tmp_path):
    """Of the saved models."""
    for name, model in models.items():
        model.save(tmp_path / name, histories=True)
    return [tmp_path / name for name in models]


@pytest.fixture
def serving(models, tmp_path):
    """A client of the models, under settings; `client.service` is what answers."""

    @contextmanager
    def start(names=("first", "second"), read=None, **settings):
        settings = settings_from({"reload": 0.0, "batch": 4} | settings)
        found = sources(
            [tmp_path / name for name in names], read or (lambda folder: models[folder.name]), frozenset(["u3"])
        )
        service = Service(found, settings, tmp_path)
        with TestClient(application(service), base_url="http://127.0.0.1") as client:
            client.service = service
            yield client

    return start


@pytest.fixture
def client(serving):
    with serving() as client:
        yield client
