"""What the tests of the logs share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe, as standard error often is."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)
