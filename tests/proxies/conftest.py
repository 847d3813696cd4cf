"""What the tests of proxies share: a certificate, and a Redis server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers.certificates import Authority, Pair
from tests.brokers.servers import Servers


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who has signed the proxies' certificate."""
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="session")
def pair(authority: Authority) -> Pair:
    """The proxies' certificate."""
    return authority.issue("localhost", "localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """The URL of a Redis server."""
    return servers("redis").url


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the proxies of a file of tests have their files."""
    return tmp_path_factory.mktemp("proxies")
