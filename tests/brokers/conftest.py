"""What the tests of brokers share: real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.brokers.servers import Servers, run_servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Real servers by their kind."""
    yield from run_servers(tmp_path_factory.mktemp("servers"))
