"""What of a connection is counted: everything that is counted in is counted out."""

from __future__ import annotations

import pytest

from oncecast.errors import Refusal
from oncecast.policy.identity import Identity
from oncecast.policy.quotas import Quotas
from oncecast.server.build import build_quotas
from oncecast.server.presence import arrive, become, join
from oncecast.server.settings import Limits, Settings

PROXY = "10.0.0.1"
ANN = Identity("192.0.2.1", "ann", kind="token")
ANYBODY = Identity("192.0.2.1")


@pytest.fixture
def quotas() -> Quotas:
    """One of everything."""
    limits = Limits(connections_per_address=1, connections_per_user=1, handshakes_per_address=1)
    return build_quotas(Settings(limits=limits, trusted_proxies=(PROXY,)))


def test_a_connection_of_an_address(quotas: Quotas) -> None:
    """A connection counts for its address until it ends, however often its end is reported."""
    presence = arrive(quotas, "192.0.2.1", 0.0)
    assert presence is not None
    with pytest.raises(Refusal):
        arrive(quotas, "192.0.2.1", 0.0)
    assert ANN is presence.begin(ANN, {})
    assert not presence.asks
    presence.end()
    presence.end()
    again = arrive(quotas, "192.0.2.1", 0.0)
    assert again is not None
    again.end()  # before its first request
    assert arrive(quotas, "192.0.2.1", 0.0) is not None


def test_a_connection_that_does_not_count(quotas: Quotas) -> None:
    """One of loopback has no presence, until a user has a stream on it."""
    assert arrive(quotas, "127.0.0.1", 0.0) is None
    assert join(None, quotas, Identity("127.0.0.1"), 0.0) is None
    presence = join(None, quotas, ANN, 0.0)
    assert presence is not None
    with pytest.raises(Refusal):
        join(None, quotas, ANN, 0.0)
    presence.leave()
    assert join(None, quotas, ANN, 0.0) is not None


def test_a_connection_of_a_proxy(quotas: Quotas) -> None:
    """Each request says whose it is, and a stream counts for its client."""
    presence = arrive(quotas, PROXY, 0.0)
    assert presence is not None
    for client in ("192.0.2.1", "192.0.2.2"):
        assert Identity(client) == presence.begin(ANN, {"x-forwarded-for": client})
        assert presence.asks
    presence.join(ANYBODY, 0.0)
    other = arrive(quotas, PROXY, 0.0)
    assert other is not None
    with pytest.raises(Refusal):
        other.join(ANYBODY, 0.0)
    with pytest.raises(Refusal):
        arrive(quotas, "192.0.2.1", 0.0)
    presence.end()
    other.join(ANYBODY, 0.0)


def test_a_user_who_comes_to_an_open_socket(quotas: Quotas) -> None:
    """A user of an open socket counts once, from the token on, beside the client's address."""
    presence = arrive(quotas, PROXY, 0.0)
    assert presence is not None
    presence.join(ANYBODY, 0.0)
    for _ in range(2):  # a token that is renewed is the same user's
        assert presence is become(presence, quotas, ANN, 0.0)
    with pytest.raises(Refusal):
        become(None, quotas, ANN, 0.0)
    presence.end()
    found = become(None, quotas, ANN, 0.0)
    assert found is not None
    found.end()
    assert become(None, quotas, ANN, 0.0) is not None
    assert arrive(quotas, "192.0.2.1", 0.0) is not None
