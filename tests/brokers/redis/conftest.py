"""What the tests of Redis share: servers that a test has for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers.redis.sites import Sites, sites_of
from tests.brokers.servers import require


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    """Servers of this test alone; skipped by name where their programs are missing."""
    for kind in ("redis", "valkey"):
        require(kind)
    yield from sites_of(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    """Servers of the tests of one file."""
    require("redis")
    yield from sites_of(tmp_path_factory.mktemp("redis"))
