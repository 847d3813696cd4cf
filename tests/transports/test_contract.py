"""The transports' contract, over each of ours."""

from __future__ import annotations

import pytest

from oncecast.testing.subscriber import Subscriber
from oncecast.testing.subscribers import SUBSCRIBERS
from oncecast.testing.transport import CHECKS, check_transport


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_contract(kind: type[Subscriber], name: str) -> None:
    """Each transport keeps each clause of the contract."""
    await check_transport(kind, name)
