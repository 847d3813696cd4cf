"""The limits of an address, a user and a channel, for all processes of this machine together.

A connection has buckets of its own (`bucket.py`), and a second connection has others. So these limits count by key, in
memory that the processes share (`sketch.py`): rates, and numbers of connections.

Keys: an address is an IPv4 address or the /64 of an IPv6 one. Loopback has none, and neither have trusted proxies, as
any number of clients stand behind them. A user is the subject of a token; a client without one counts as its address. A
server's key is held to what its channels may take, and to nothing else.

Invariant: what is counted in is counted out with the same key (`connect` and `disconnect`, `join` and `leave`),
whatever the settings are meanwhile. A refused connection is not counted in. Refusals are counted by their limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Never

from ..errors import Refusal
from .bucket import BURST_SECONDS
from .channels import ChannelRules
from .forwarded import TrustedProxies, network_of
from .identity import Identity
from .limits import Limits
from .sketch import RATE_SLOTS, REGION_WORDS, ROWS, Counts, Hasher, Rates

__all__ = ["LIMITED", "NO_CHANNEL_QUOTA", "ChannelQuota", "Quotas", "channel_quotas", "too_many"]

NO_PROXIES = TrustedProxies()
PUBLISHERS = 4096  # addresses whose key is remembered: a publish asks for one
CROWD_SECONDS = 5.0  # the Retry-After of a refusal for too many connections

# The limits that are counted where they refuse, by the names of their settings, and what there may be no more of.
LIMITED: Mapping[str, str] = {
    "connections_per_address": "connections from one address",
    "connections_per_user": "connections of one user",
    "connects_per_second": "new connections from one address",
    "handshakes_per_address": "connections from one address that have asked for nothing yet",
    "channels_per_subscription": "channels of one connection",
    "frames_per_second": "frames of one connection",
    "publishes_per_second": "messages of one connection",
    "bytes_per_second": "bytes of one connection's messages",
    "history_pages_per_second": "pages of history of one connection",
    "user_publishes_per_second": "messages of one user",
    "user_bytes_per_second": "bytes of one user's messages",
    "user_tickets_per_second": "tickets of one user",
    "user_history_pages_per_second": "pages of history of one user",
    "channel_publishes_per_second": "messages to this channel",
    "channel_bytes_per_second": "bytes of messages to this channel",
    "channel_user_publishes_per_second": "messages of one user to this channel",
    "channel_user_bytes_per_second": "bytes of one user's messages to this channel",
}


@dataclass(frozen=True, slots=True)
class ChannelQuota:
    """What the channels of one pattern take, each by itself. None is no limit."""

    message_bytes: int | None = None
    publishes_per_second: float | None = None
    bytes_per_second: float | None = None
    user_publishes_per_second: float | None = None
    user_bytes_per_second: float | None = None


NO_CHANNEL_QUOTA = ChannelQuota()


def too_many(name: str, rate: float, seconds: float | None = None) -> Refusal:
    """Return the refusal of a limit: its rate per second, and the seconds after which more is allowed."""
    return Refusal("too_many_requests", f"At most {rate:g} {LIMITED[name]} a second.", retry_after=seconds)


class Quotas:
    """The quotas of one process. Without `rates` and `counts` it counts for itself alone."""

    __slots__ = ("_channels", "_counts", "_hasher", "_limits", "_publishers", "_rates", "proxies", "refused")

    def __init__(
        self,
        limits: Limits,
        channels: ChannelRules[ChannelQuota] | None = None,
        proxies: TrustedProxies = NO_PROXIES,
        *,
        hasher: Hasher,
        rates: Rates | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._hasher = hasher
        self._rates = rates or Rates(memoryview(bytearray(8 * ROWS * RATE_SLOTS)).cast("d"))
        if counts is None:
            own = memoryview(bytearray(4 * REGION_WORDS)).cast("I")
            counts = Counts(own, [own])
        self._counts = counts
        self.refused: dict[str, int] = dict.fromkeys(LIMITED, 0)
        self.adopt(limits, channels, proxies)

    def adopt(
        self,
        limits: Limits,
        channels: ChannelRules[ChannelQuota] | None = None,
        proxies: TrustedProxies = NO_PROXIES,
    ) -> None:
        """Apply these limits from now on; what is counted stays."""
        self._limits = limits
        self.proxies = proxies
        self._channels = channels
        self._publishers: dict[str, str] = {}  # the keys of clients without a user, by their address

    # -- connections

    def room(self, own: int) -> int:
        """Return how many more connections may be open on this machine, below 0 how many there are too many.

        `own` is how many this process has.
        """
        self._counts.set_all(own)
        most = self._limits.connections_in_all
        return most - self._counts.all if most else 1

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of the client whose request came from a proxy with these headers."""
        return self.proxies.client(peer, headers)

    def is_proxy(self, address: str) -> bool:
        """Return whether an address is a trusted proxy's."""
        return self.proxies.trusts(address)

    def connect(self, network: str, now: float) -> None:
        """Count in a connection from an address. It counts as a handshake too, until `begin`. Raises `Refusal`."""
        place = self._hasher.place(f"handshake:{network}")
        if self._counts.count(place) >= self._limits.handshakes_per_address:
            self._refuse("handshakes_per_address")
        self._admit(network, now)
        self._counts.add(place, 1)
        self._counts.add(self._hasher.place(f"address:{network}"), 1)

    def begin(self, network: str) -> None:
        """Count a connection's handshake out: its first request has come."""
        self._counts.add(self._hasher.place(f"handshake:{network}"), -1)

    def disconnect(self, network: str, *, begun: bool) -> None:
        """Count a connection out. `begun` says whether `begin` was called."""
        if not begun:
            self.begin(network)
        self._counts.add(self._hasher.place(f"address:{network}"), -1)

    def join(self, network: str, user: str, now: float) -> None:
        """Count in a stream or socket: of a client behind a proxy, "" for others, and of a user. Raises `Refusal`."""
        if user:
            place = self._hasher.place(f"connections:{user}")
            if self._counts.count(place) >= self._limits.connections_per_user:
                self._refuse("connections_per_user")
        if network:
            self._admit(network, now)
            self._counts.add(self._hasher.place(f"address:{network}"), 1)
        if user:
            self._counts.add(place, 1)

    def leave(self, network: str, user: str) -> None:
        """Count a stream or socket out that `join` has counted in."""
        if network:
            self._counts.add(self._hasher.place(f"address:{network}"), -1)
        if user:
            self._counts.add(self._hasher.place(f"connections:{user}"), -1)

    def _admit(self, network: str, now: float) -> None:
        """Check what an address may have open, and how often it connects."""
        limits = self._limits
        if self._counts.count(self._hasher.place(f"address:{network}")) >= limits.connections_per_address:
            self._refuse("connections_per_address")
        self._spend("connects_per_second", network, 1, limits.connects_per_second, now)

    # -- what is published and read

    def publish(self, identity: Identity, channel: str, size: int, now: float) -> None:
        """Count a message of `size` bytes. Raises `Refusal` (`too_many_requests`, `body_too_large`)."""
        quota = NO_CHANNEL_QUOTA if self._channels is None else self._channels.find(channel)
        if quota.message_bytes is not None and size > quota.message_bytes:
            raise Refusal("body_too_large", f"A message of {channel} is at most {quota.message_bytes} bytes.")
        user = self.publisher(identity)
        if user:
            self._write(user, now)
            self._spend("user_bytes_per_second", user, size, self._limits.user_bytes_per_second, now)
        if quota is NO_CHANNEL_QUOTA:
            return
        own, whole = f"{channel} {user}", channel
        if user:
            self._spend("channel_user_publishes_per_second", own, 1, quota.user_publishes_per_second, now)
            self._spend("channel_user_bytes_per_second", own, size, quota.user_bytes_per_second, now)
        self._spend("channel_publishes_per_second", whole, 1, quota.publishes_per_second, now)
        self._spend("channel_bytes_per_second", whole, size, quota.bytes_per_second, now)

    def issue(self, identity: Identity, now: float) -> None:
        """Count a ticket, which counts as a message too. Raises `Refusal` (`too_many_requests`)."""
        user = self.publisher(identity)
        if user:
            self._spend("user_tickets_per_second", user, 1, self._limits.user_tickets_per_second, now)
            self._write(user, now)

    def read_page(self, identity: Identity, now: float) -> None:
        """Count a page of the broker's history. Raises `Refusal`."""
        user = self.publisher(identity)
        if user:
            most = self._limits.user_history_pages_per_second
            self._spend("user_history_pages_per_second", user, 1, most, now)

    # -- keys

    def network(self, address: str) -> str:
        """Return the key of an address: "" where no limit is per address."""
        return "" if self.proxies.trusts(address) else network_of(address)

    def user(self, identity: Identity) -> str:
        """Return the key of a token's user, for `join`; "" for others."""
        return f"user {identity.subject}" if identity.kind == "token" and identity.subject else ""

    def publisher(self, identity: Identity) -> str:
        """Return the key of a publisher: a token's subject, else the address; "" without a limit of this kind."""
        if identity.kind != "anybody":
            if identity.kind == "server":
                return ""
            if user := self.user(identity):
                return user
        known = self._publishers.get(identity.address)
        return self._publisher(identity.address) if known is None else known

    # -- helpers

    def _publisher(self, address: str) -> str:
        """Find the key of a client without a user, and remember it."""
        if len(self._publishers) >= PUBLISHERS:
            self._publishers.clear()
        network = self.network(address)
        key = self._publishers[address] = f"address {network}" if network else ""
        return key

    def _write(self, user: str, now: float) -> None:
        self._spend("user_publishes_per_second", user, 1, self._limits.user_publishes_per_second, now)

    def _spend(self, name: str, key: str, count: float, rate: float | None, now: float) -> None:
        if rate is None:
            return
        seconds = self._rates.spend(self._hasher.place(f"{name}:{key}"), count / rate, BURST_SECONDS, now)
        if seconds:
            self.refused[name] += 1
            raise too_many(name, rate, seconds)

    def _refuse(self, name: str) -> Never:
        self.refused[name] += 1
        most = getattr(self._limits, name)
        raise Refusal("too_many_requests", f"At most {most} {LIMITED[name]}.", retry_after=CROWD_SECONDS)


def channel_quotas(rules: Mapping[str, ChannelQuota]) -> ChannelRules[ChannelQuota] | None:
    """Return the quotas by pattern, compiled; None where no pattern has any."""
    unlimited = ChannelQuota()
    if all(quota == unlimited for quota in rules.values()):
        return None
    return ChannelRules(
        {text: NO_CHANNEL_QUOTA if quota == unlimited else quota for text, quota in rules.items()}, NO_CHANNEL_QUOTA
    )
