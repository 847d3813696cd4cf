"""What of one connection is counted by its address and its user, and whose address that is.

A connection from loopback has none, until a user opens a stream on it. That of a trusted proxy carries the requests of
many clients: each request says whose it is, and a stream counts as its client's.

Invariant: everything that is counted in here is counted out by `end`, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ..policy.forwarded import KEPT_CHARS, TrustedProxies
from ..policy.identity import Identity
from ..policy.quotas import Quotas

__all__ = ["Presence", "arrive", "become", "join", "unread"]


class Presence:
    """Of a connection that counts for `network`, "" for none. `proxy` is the peer's address if it is a proxy's."""

    __slots__ = ("_begun", "_client", "_joined", "_network", "_proxy", "_quotas", "_read_by", "_said", "asks")

    def __init__(self, quotas: Quotas, network: str = "", proxy: str = "") -> None:
        self._quotas = quotas
        self._network = network
        self._proxy = proxy
        self._begun = not network
        self._client = Identity(proxy)  # of the request before, by what its header has `_said` to these proxies
        self._said: str | None = None
        self._read_by: TrustedProxies | None = None
        self.asks = bool(network or proxy)  # whether `begin` is to be called for the next request
        self._joined: tuple[str, str] | None = None

    def begin(self, identity: Identity, headers: Mapping[str, str]) -> Identity:
        """A request has come: return the identity of its address."""
        if not self._begun:
            self._begun = True
            self._quotas.begin(self._network)
        if not self._proxy:
            self.asks = False
            return identity
        proxies = self._quotas.proxies
        said = headers.get(proxies.header)
        if said != self._said or proxies is not self._read_by:  # most requests of a connection say the same
            self._client = _anybody(proxies.client(self._proxy, headers))
            self._said = said
            self._read_by = proxies if said is None or len(said) <= KEPT_CHARS else None
            if self._read_by is None:
                self._said = None
        return self._client

    def unread(self, identity: Identity) -> Identity:
        """Return the identity for bytes that are no request. On a proxy's connection that is the proxy's."""
        return Identity(self._proxy or identity.address)

    def join(self, identity: Identity, now: float) -> None:
        """Count a stream or socket of this identity. Raises `Refusal`."""
        network = self._quotas.network(identity.address) if self._proxy else ""
        user = self._quotas.user(identity)
        if network or user:
            self._quotas.join(network, user, now)
            self._joined = network, user

    def become(self, identity: Identity, now: float) -> None:
        """Count the user of a stream that has none yet, or of a poll that waits. Raises `Refusal`."""
        network, known = self._joined or ("", "")
        user = self._quotas.user(identity)
        if user and not known:
            self._quotas.join("", user, now)
            self._joined = network, user

    def leave(self) -> None:
        """Count the stream or socket out."""
        if self._joined is not None:
            self._quotas.leave(*self._joined)
            self._joined = None

    def end(self) -> None:
        """Count everything out."""
        self.leave()
        if self._network:
            self._quotas.disconnect(self._network, begun=self._begun)
            self._network = ""


def arrive(quotas: Quotas, address: str, now: float) -> Presence | None:
    """Count a new connection in; None for one that does not count. Raises `Refusal`."""
    if quotas.is_proxy(address):
        return Presence(quotas, proxy=address)
    network = quotas.network(address)
    if not network:
        return None
    quotas.connect(network, now)
    return Presence(quotas, network)


def join(presence: Presence | None, quotas: Quotas, identity: Identity, now: float) -> Presence | None:
    """Count a stream or socket in. Returns the connection's presence, if it has one now. Raises `Refusal`."""
    if presence is None:
        if not quotas.user(identity):
            return None
        presence = Presence(quotas)
    presence.join(identity, now)
    return presence


def become(presence: Presence | None, quotas: Quotas, identity: Identity, now: float) -> Presence | None:
    """Count the user of a stream that was nobody's, or of a waiting poll. Returns the presence. Raises `Refusal`."""
    presence = presence or Presence(quotas)
    presence.become(identity, now)
    return presence


@lru_cache(maxsize=1024)
def _anybody(address: str) -> Identity:
    return Identity(address)


def unread(presence: Presence | None, identity: Identity) -> Identity:
    """Return the identity for bytes that are no request, on a connection with this presence."""
    return Identity(identity.address) if presence is None else presence.unread(identity)
