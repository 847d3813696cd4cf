"""What every request of one server needs: the node, the rules, the counters, the clock's second and the pages.

It knows no socket and no event loop: time is passed in, and `server.app.App` builds the connections on it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..core.node import Node
from ..errors import Refusal
from ..policy.authenticator import AuthCounters, Authenticator
from ..policy.hosts import Hosts
from ..policy.identity import Identity
from ..policy.origin import Headers, Origins
from ..policy.tokens import LAST_SECOND
from ..protocol.base import TransportSettings
from ..wire import http1
from .bulletin import Bulletin
from .credentials import identify, of_a_user, trusts_cookies
from .ended import LatelyEnded
from .exchange import Exchange
from .memo import KnownPoll, Memo
from .overview import Overview, OverviewRequest

KEY_REMOVED = Refusal("unauthorized", "This server's key has left the settings: connect again with one that counts.")

# Calls back, within a few seconds, with the metrics of all workers as Prometheus's text.
CollectMetrics = Callable[[Callable[[bytes], None]], None]

# Calls back, within a few seconds, with the overview of all workers that was asked for.
GiveOverview = Callable[[OverviewRequest, Callable[[Overview], None]], None]

# Begins to stop the whole server, as SIGTERM does, for a reason that the log gets.
BeginDrain = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the settings a connection is held to.

    Without an `authenticator` no credentials are looked at. `cookie` names the one that may hold a token. With `asked`
    the identity of each request is found before the routes are called. With `open` anybody may have the overview.
    """

    settings: TransportSettings
    hosts: Hosts
    origins: Origins
    authenticator: Authenticator | None = None
    cookie: str | None = None
    asked: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    """A file that is served as it is, or as `gzipped` to clients that accept gzip (b"" where that gains nothing)."""

    content_type: str
    body: bytes
    etag: str
    gzipped: bytes = b""


@dataclass(slots=True)
class RequestCounters:
    """What the requests have done since the server began.

    `requests` counts by status and `listens` by transport, both without those that are `remembered`: polls that were
    answered as a moment before, with 200. Neither is a `Counter`, with which to count takes several times as long.
    """

    requests: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    listens: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    remembered: int = 0


class Service:
    """What the routes answer from. `scheme` is what its own pages are reached by: `http` or `https`.

    `wall` returns Unix seconds. `ready` is true until the server begins to stop. `collect` gathers the metrics; without
    it `/metrics` is not found. `overview` and `drain` are there where the server gives them.
    """

    def __init__(
        self,
        node: Node,
        *,
        rules: Rules,
        pages: Mapping[str, Asset],
        wall: Callable[[], float],
        scheme: str = "http",
        collect: CollectMetrics | None = None,
    ) -> None:
        self.node = node
        self.authentications = AuthCounters()
        self.identifies = False
        self.bulletin: Bulletin | None = None  # what the nodes tell each other; the server makes it
        self.ended = LatelyEnded()
        self.adopt(rules)
        self.pages = pages
        self.wall = wall
        self.scheme = scheme
        self.collect = collect
        self.overview: GiveOverview | None = None
        self.drain: BeginDrain | None = None
        self.ready = True
        self.counters = RequestCounters()
        self.second = 0
        self.date = b""  # of an answer made now (RFC 9110 §6.6.1)
        self.read_clock()

    def adopt(self, rules: Rules) -> None:
        """Apply these rules to whatever begins from now on."""
        self.settings = rules.settings
        self.access = rules.settings.access
        self.authenticator = rules.authenticator
        if self.authenticator is not None:
            self.authenticator.counters = self.authentications
            self.identifies = True  # for good: a connection has an identity of these keys after they are gone, too
        self.asked = rules.asked
        if rules.asked:
            self.identifies = False
        self.cookie = rules.cookie
        self.open = rules.open
        self.hosts = rules.hosts
        self.origins = rules.origins
        self.memo = Memo(keeps=not rules.asked)  # no answer that was made under the old rules is given under the new

    def check_origin(self, request: http1.Request) -> Headers:
        """Return the CORS headers of an answer to this request. Raises `Refusal` for the origin of a foreign page."""
        headers = request.headers
        origin = headers.get("origin")
        return () if origin is None else self.origins.check(origin, headers.get("host"), request.scheme or self.scheme)

    def identify(self, connection: Exchange, request: http1.Request) -> None:
        """Set the identity of a connection to that of its request. Raises `Refusal`.

        Call it after `check_origin`: a cookie counts only where the origin is known to be one of ours.
        """
        address = connection.identity.address
        if self.authenticator is None:
            if self.identifies and connection.identity.kind != "anybody":
                connection.identity = Identity(address)
            return
        cookie = self.cookie
        if cookie is not None and not trusts_cookies(request, self.check_origin(request)):
            cookie = None
        connection.identity = identify(
            self.authenticator, request, address, self.wall(), cookie=cookie, check=self.check_counts
        )

    def recognize(self, connection: Exchange, poll: KnownPoll) -> bool:
        """Do as `identify` for the very request that is remembered: to hash its token costs as much as the answer.

        Return whether this identity was allowed the poll by rules that are `fixed`.
        """
        identity, before = poll.identity, connection.identity
        if identity is not before:  # of the poll before, as it mostly is: then its address is the same too
            if identity is None or identity.address != before.address:
                self.identify(connection, poll.request)
                return False
            connection.identity = identity
        expires = identity.expires
        if expires is not None and expires <= self.wall():
            self.identify(connection, poll.request)
            return False
        if identity.kind == "token":
            self.authentications.remembered += 1
            bulletin = self.bulletin
            if bulletin is not None and bulletin.revoked:
                self.check_counts(identity)
        else:
            self.check_counts(identity)
        return self.access.fixed

    def check_counts(self, identity: Identity) -> None:
        """Raise `Refusal` for credentials that were verified once, and count no more.

        A server's key may have left the settings since, and a token may be one of those that were revoked.
        """
        if identity.kind == "server" and not (self.authenticator and self.authenticator.server_keys.has(identity)):
            raise KEY_REMOVED.with_traceback(None)
        if self.bulletin is None or not self.bulletin.revoked or identity.kind != "token":
            return
        since = self.bulletin.revoked.get(identity.subject or "")
        if since is not None and (identity.issued or 0.0) < since:
            raise Refusal("unauthorized", "This token was revoked: get a fresh one.")

    def verify(self, token: str, address: str) -> Identity:
        """Return whom a token of an open connection stands for. Raises `Refusal`."""
        if self.authenticator is None:
            raise Refusal("request_invalid", "This server knows no keys, so it takes no token: leave it out.")
        identity = self.authenticator.identify(of_a_user(token), address, self.wall())
        self.check_counts(identity)
        return identity

    def cors_headers(self, headers: Mapping[str, str], scheme: str = "") -> Headers:
        """Return the CORS headers of any answer, an error too, to a request with these headers, by its `scheme`.

        A page of a refused origin may not read the answer; then only `Vary` keeps a cache from giving it to another.
        """
        origin = headers.get("origin")
        if origin is None:
            return ()
        try:
            return self.origins.check(origin, headers.get("host"), scheme or self.scheme)
        except Refusal:
            return (("Vary", "Origin"),)

    @property
    def unready(self) -> str | None:
        """Why the server should get no new clients, in one line; None while it is ready."""
        if self.node.failed is not None:
            return self.node.failed
        return self.node.unready if self.ready else "the server is stopping"

    def read_clock(self) -> None:
        """Read the wall clock for the `Date` of the next answers. Call it several times a second."""
        second = min(max(0, int(self.wall())), LAST_SECOND)
        if second != self.second:
            self.second = second
            self.date = http1.http_date(second)
