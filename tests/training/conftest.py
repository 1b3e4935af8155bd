"""PAD, or what the overrides say, on the tiny dataset."""

import pytest

from tests.support.steps import Setup


@pytest.fixture
def setup(make_config, dataset, text):
    return lambda recipe="paper", **overrides: Setup(make_config(recipe, **overrides), dataset, text)
