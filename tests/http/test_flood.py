"""The flood guard of one connection: what it refuses, and that each refusal is counted once."""

from __future__ import annotations

import pytest

from oncecast.errors import Refusal
from oncecast.http.flood import FloodGuard
from oncecast.policy.identity import ANYBODY, Identity
from oncecast.policy.limits import Limits
from oncecast.policy.quotas import Quotas
from oncecast.policy.sketch import Hasher
from oncecast.protocol.base import TransportSettings


def settings(*, quotas: bool) -> TransportSettings:
    """Return settings that allow a message, a byte and a page a second."""
    held = Quotas(Limits(), hasher=Hasher(b"x" * 16)) if quotas else None
    return TransportSettings(publishes_per_second=1, history_pages_per_second=1, quotas=held)


@pytest.mark.parametrize("quotas", [False, True])
def test_publishes_past_the_rate_are_refused(quotas: bool) -> None:
    """The error names the limit and when to come back, and the refusal is counted by the limit's name."""
    given = settings(quotas=quotas)
    guard = FloodGuard()
    guard.spend_publishes(given, 0.0, 3, 10)
    with pytest.raises(Refusal, match="a second") as refused:
        guard.spend_publishes(given, 0.0, 1, 10)
    assert ("too_many_requests", True) == (refused.value.code, bool(refused.value.retry_after))
    if given.quotas is not None:
        assert 1 == given.quotas.refused["publishes_per_second"]


@pytest.mark.parametrize("quotas", [False, True])
def test_pages_past_the_rate_are_refused(quotas: bool) -> None:
    """The refusal is returned, and counted by the limit's name."""
    given = settings(quotas=quotas)
    guard = FloodGuard()
    found = [guard.read_page(given, ANYBODY, 0.0) for _ in range(3)]
    assert [None, None, "too_many_requests"] == [each and each.code for each in found]
    if given.quotas is not None:
        assert 1 == given.quotas.refused["history_pages_per_second"]


def test_pages_past_the_rate_of_the_address_are_refused() -> None:
    """A connection with pages left is held to what its address may read, too."""
    held = Quotas(Limits(user_history_pages_per_second=1), hasher=Hasher(b"x" * 16))
    given = TransportSettings(quotas=held)
    guard = FloodGuard()
    asker = Identity("192.0.2.1")
    found = [guard.read_page(given, asker, 0.0) for _ in range(9)]
    assert (found[0], "too_many_requests") == (None, found[-1] and found[-1].code)
