"""The quotas: what addresses, users and channels may do together, whoever counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from oncecast.errors import Refusal
from oncecast.policy.forwarded import TrustedProxies
from oncecast.policy.identity import Identity
from oncecast.policy.limits import Limits
from oncecast.policy.quotas import LIMITED, ChannelQuota, Quotas, channel_quotas
from oncecast.policy.sketch import RATE_SLOTS, REGION_WORDS, ROWS, Counts, Hasher, Rates

NETWORK = "192.0.2.1"
ANN = Identity("192.0.2.1", "ann", kind="token")
BOB = Identity("192.0.2.1", "bob", kind="token")
ANYBODY = Identity("192.0.2.1")
SERVER = Identity("192.0.2.1", "backend", kind="server")


def quotas(limits: Limits | None = None, **channels: ChannelQuota) -> Quotas:
    """Return the quotas of one process."""
    rules = {"a": ChannelQuota(), **channels}
    return Quotas(limits or Limits(), channel_quotas(rules), TrustedProxies(("10.0.0.0/8",)), hasher=Hasher(b"x" * 16))


def refused(call: Callable[..., object], *args: object) -> tuple[str, str, float | None] | None:
    """Return the code, the words and the seconds of a refusal, or None."""
    try:
        call(*args)
    except Refusal as refusal:
        return refusal.code, refusal.message, refusal.retry_after
    return None


def test_connections_of_an_address() -> None:
    """An address may have its number of connections at once, and one that closes makes room for another."""
    one = quotas(Limits(connections_per_address=2))
    assert [None, None] == [refused(one.connect, NETWORK, 0.0) for _ in range(2)]
    expected = "too_many_requests", "At most 2 connections from one address.", 5.0
    assert expected == refused(one.connect, NETWORK, 0.0)
    assert refused(one.connect, "192.0.2.2", 0.0) is None
    one.disconnect(NETWORK, begun=False)
    assert refused(one.connect, NETWORK, 0.0) is None
    assert 1 == one.refused["connections_per_address"]


def test_handshakes_of_an_address() -> None:
    """Only those count that have asked for nothing yet."""
    one = quotas(Limits(handshakes_per_address=2))
    for _ in range(5):
        one.connect(NETWORK, 0.0)
        one.begin(NETWORK)
    one.connect(NETWORK, 0.0)
    one.connect(NETWORK, 0.0)
    expected = "At most 2 connections from one address that have asked for nothing yet."
    found = refused(one.connect, NETWORK, 0.0)
    assert found is not None
    assert expected == found[1]
    one.disconnect(NETWORK, begun=False)
    assert refused(one.connect, NETWORK, 0.0) is None
    assert 1 == one.refused["handshakes_per_address"]


def test_new_connections_a_second() -> None:
    """The new connections of two seconds may come at once, and the refusal of the next says when to come back."""
    one = quotas(Limits(connects_per_second=4))
    verdicts = [refused(one.connect, NETWORK, 100.0) for _ in range(9)]
    assert [None] * 8 == verdicts[:8]
    code, message, seconds = verdicts[8] or ("", "", 0)
    assert ("too_many_requests", "At most 4 new connections from one address a second.") == (code, message)
    assert pytest.approx(1 / 4) == seconds
    assert refused(one.connect, NETWORK, 100.0 + (seconds or 0)) is None
    assert 1 == one.refused["connects_per_second"]


def test_streams_of_a_user_and_of_a_client_behind_a_proxy() -> None:
    """Counted together with the connections of its address; a user from wherever it connects."""
    one = quotas(Limits(connections_per_user=1, connections_per_address=2))
    user = one.user(ANN)
    one.join("192.0.2.7", user, 0.0)
    assert refused(one.join, "", user, 0.0) == ("too_many_requests", "At most 1 connections of one user.", 5.0)
    one.connect("192.0.2.7", 0.0)
    assert refused(one.join, "192.0.2.7", one.user(BOB), 0.0) is not None
    assert refused(one.join, "", one.user(BOB), 0.0) is None  # so bob was not counted in by the refusal
    one.leave("192.0.2.7", user)
    assert refused(one.join, "192.0.2.7", user, 0.0) is None
    assert (1, 1) == (one.refused["connections_per_user"], one.refused["connections_per_address"])


def test_connections_without_a_counted_address() -> None:
    """Loopback, where load tests and proxies are, and trusted proxies."""
    one = quotas(Limits(user_publishes_per_second=1))
    assert ["", "", "", "192.0.2.1", "2001:db8::/64"] == [
        one.network(address) for address in ("127.0.0.1", "::1", "10.1.2.3", "192.0.2.1", "2001:db8::9")
    ]
    for identity in (Identity("127.0.0.1"), Identity("10.0.0.1"), SERVER):
        assert [None] * 9 == [refused(one.publish, identity, "a", 1, 0.0) for _ in range(9)]
    assert (True, False) == (one.is_proxy("10.0.0.1"), one.is_proxy("192.0.2.1"))
    assert "192.0.2.1" == one.client("10.0.0.1", {"x-forwarded-for": "192.0.2.1"})


def test_an_address_that_is_a_proxys_from_now_on_or_no_more() -> None:
    """What was remembered of it counts no longer."""
    one = quotas(Limits(user_publishes_per_second=1))
    client, proxy = Identity("192.0.2.1"), Identity("10.0.0.1")
    assert [None, None, True] == [refused(one.publish, client, "a", 1, 0.0) and True for _ in range(3)]
    assert [None] * 3 == [refused(one.publish, proxy, "a", 1, 0.0) for _ in range(3)]
    one.adopt(Limits(user_publishes_per_second=1), None, TrustedProxies(("192.0.2.0/24",)))
    assert [None] * 3 == [refused(one.publish, client, "a", 1, 0.0) for _ in range(3)]
    assert [None, None, True] == [refused(one.publish, proxy, "a", 1, 0.0) and True for _ in range(3)]


def test_addresses_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound all are forgotten, which changes no answer."""
    monkeypatch.setattr("oncecast.policy.quotas.PUBLISHERS", 2)
    one = quotas(Limits(user_publishes_per_second=1))
    addresses = [Identity(f"192.0.2.{number}") for number in range(5)]
    assert [None] * 10 == [refused(one.publish, address, "a", 1, 0.0) for address in addresses for _ in range(2)]
    assert [True] * 5 == [refused(one.publish, address, "a", 1, 0.0) is not None for address in addresses]
    assert len(one._publishers) <= 2


def test_messages_of_a_user() -> None:
    """On all of its connections and channels; a client without a token counts as its address."""
    one = quotas(Limits(user_publishes_per_second=1))
    for identity in (ANN, BOB, ANYBODY, Identity("192.0.2.2")):
        assert [None, None] == [refused(one.publish, identity, channel, 1, 0.0) for channel in "ab"]
        found = refused(one.publish, identity, "c", 1, 0.0)
        assert found == ("too_many_requests", "At most 1 messages of one user a second.", 1.0)
    assert refused(one.publish, Identity("192.0.2.9", "ann", kind="token"), "a", 1, 0.0) is not None
    assert refused(one.publish, Identity("192.0.2.9", "ann", kind="token"), "a", 1, 1.0) is None
    assert 5 == one.refused["user_publishes_per_second"]


def test_bytes_of_a_user() -> None:
    """A message larger than what is left is taken on credit, and then the debt is waited off."""
    one = quotas(Limits(user_bytes_per_second=1024))
    assert refused(one.publish, ANN, "a", 10_240, 0.0) is None
    assert refused(one.publish, ANN, "a", 1, 7.9) is not None
    assert refused(one.publish, ANN, "a", 1, 8.1) is None
    assert 1 == one.refused["user_bytes_per_second"]


@pytest.mark.parametrize(
    "quota, size, own, name",
    [
        (ChannelQuota(publishes_per_second=1), 1, False, "channel_publishes_per_second"),
        (ChannelQuota(bytes_per_second=10), 10, False, "channel_bytes_per_second"),
        (ChannelQuota(user_publishes_per_second=1), 1, True, "channel_user_publishes_per_second"),
        (ChannelQuota(user_bytes_per_second=10), 10, True, "channel_user_bytes_per_second"),
    ],
)
def test_what_a_channel_takes(quota: ChannelQuota, size: int, own: bool, name: str) -> None:
    """Of everybody, a server too, or of each user; another channel is not touched."""
    one = quotas(b=quota)
    assert [None, None] == [refused(one.publish, ANN, "b", size, 0.0) for _ in range(2)]
    assert refused(one.publish, ANN, "b", size, 0.0) is not None
    assert 1 == one.refused[name]
    assert own == (refused(one.publish, BOB, "b", size, 0.0) is None)
    assert own == (refused(one.publish, SERVER, "b", size, 0.0) is None)
    assert [None] * 5 == [refused(one.publish, ANN, "a", size, 0.0) for _ in range(5)]


def test_a_channels_longest_message() -> None:
    """A message above its channel's limit is refused with the code for messages that are too large."""
    one = quotas(b=ChannelQuota(message_bytes=3))
    assert refused(one.publish, SERVER, "b", 3, 0.0) is None
    assert ("body_too_large", "A message of b is at most 3 bytes.", None) == refused(one.publish, SERVER, "b", 4, 0.0)


def test_users_whose_names_look_like_other_keys() -> None:
    """A subject may have spaces and colons; it never spends what is another's."""
    one = quotas(Limits(user_publishes_per_second=1), b=ChannelQuota(user_publishes_per_second=1))
    for subject in ("x", "b x", "192.0.2.1", "address 192.0.2.1", "user x", "", ":"):
        one.publish(Identity("192.0.2.77", subject or None, kind="token"), "b", 1, 0.0)
        one.publish(Identity("192.0.2.77", subject or None, kind="token"), "b", 1, 0.0)
    assert refused(one.publish, ANN, "b", 1, 0.0) is None


def test_tickets_of_a_user() -> None:
    """They have a rate of their own, count as messages too, and a server's key may ask for any number."""
    one = quotas(Limits(user_tickets_per_second=1))
    assert [None, None] == [refused(one.issue, ANN, 0.0) for _ in range(2)]
    assert ("too_many_requests", "At most 1 tickets of one user a second.", 1.0) == refused(one.issue, ANN, 0.0)
    assert refused(one.publish, ANN, "a", 1, 0.0) is None
    assert [None] * 9 == [refused(one.issue, Identity("192.0.2.7", "shop", "server"), 0.0) for _ in range(9)]
    two = quotas(Limits(user_publishes_per_second=1))
    assert [None, None] == [refused(two.issue, ANN, 0.0) for _ in range(2)]
    assert ("too_many_requests", "At most 1 messages of one user a second.", 1.0) == refused(two.issue, ANN, 0.0)


def test_pages_of_history_of_a_user() -> None:
    """As messages are counted."""
    one = quotas(Limits(user_history_pages_per_second=1))
    assert [None, None] == [refused(one.read_page, ANN, 0.0) for _ in range(2)]
    assert ("too_many_requests", "At most 1 pages of history of one user a second.", 1.0) == refused(
        one.read_page, ANN, 0.0
    )
    assert refused(one.read_page, Identity("127.0.0.1"), 0.0) is None


def test_all_processes_count_together() -> None:
    """In one memory; the room for connections is that of all of them."""
    memory = [memoryview(bytearray(4 * REGION_WORDS)).cast("I") for _ in range(2)]
    rates = Rates(memoryview(bytearray(8 * ROWS * RATE_SLOTS)).cast("d"))
    limits = Limits(connections_per_address=3, user_publishes_per_second=1, connections_in_all=10)
    one, two = (Quotas(limits, hasher=Hasher(b"x" * 16), rates=rates, counts=Counts(own, memory)) for own in memory)
    one.connect(NETWORK, 0.0)
    two.connect(NETWORK, 0.0)
    one.connect(NETWORK, 0.0)
    assert refused(two.connect, NETWORK, 0.0) is not None
    assert [None, None] == [refused(each.publish, ANN, "a", 1, 0.0) for each in (one, two)]
    assert refused(two.publish, ANN, "a", 1, 0.0) is not None
    assert [4, 1, 0, -2] == [one.room(6), two.room(3), two.room(4), two.room(6)]
    one.adopt(Limits())
    assert 1 == one.room(10_000)


def test_every_limit_has_words_and_a_setting() -> None:
    """The metric is named after the setting; those of channels after the keys of their tables."""
    known = set(Limits.__struct_fields__) | {f"channel_{name}" for name in ChannelQuota.__dataclass_fields__}
    assert set(LIMITED) <= known
    assert set(LIMITED) == set(quotas().refused)
