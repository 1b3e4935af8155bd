"""A method on the tiny dataset."""

import pytest

from tests.support.steps import Setup


@pytest.fixture
def setup(make_config, dataset, text):
    def make(method: str, recipe: str = "paper", **fields):
        return Setup(make_config(recipe, method=method, **fields), dataset, text)

    return make
