"""Tests on several devices: the CPU stands for four (conftest.py), a machine with a GPU has what it has."""

import jax
import pytest


def needs(devices: int) -> None:
    """Skips a test where there are fewer devices."""
    if jax.device_count() < devices:
        pytest.skip(f"{devices} devices are needed and {jax.device_count()} there")
