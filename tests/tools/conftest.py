"""What several tests of the tools share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest


@pytest.fixture(scope="session")
def compare(forked: Callable[..., Any]) -> Callable[..., Any]:
    """Run `tools/compare.py ARGUMENTS` in a fork, and its jobs in forks of that; as `forked`."""
    return partial(forked, "tests/forked_jobs.py", "tools/compare.py")
