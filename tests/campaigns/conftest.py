"""How much of a campaign is run."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def number() -> Callable[[int, int], int]:
    """The second of two numbers where CAMPAIGN=long, else the first."""
    return lambda short, long: long if os.environ.get("CAMPAIGN") == "long" else short
