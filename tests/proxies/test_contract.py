"""The transports' contract through each proxy, to three nodes on one Redis: see `contract.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS
from tests.brokers.certificates import Pair
from tests.proxies.contract import QUICK, Front, fronted, keeps
from tests.proxies.programs import PROGRAMS


@pytest.fixture(scope="module", params=PROGRAMS)
def front(request: pytest.FixtureRequest, folder: Path, pair: Pair) -> Iterator[Front]:
    """Each proxy, running."""
    with fronted(request.param, folder, pair) as front:
        yield front


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract(kind: type[Subscriber], name: str, front: Front, redis_url: str) -> None:
    """Each transport keeps each clause through each proxy, at its own timeouts."""
    await keeps(kind, name, front, redis_url)
