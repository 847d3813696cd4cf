"""One connection over ASGI as the `Peer` of an `App`, and as the connection behind a carrier.

It queues what is to be sent; `connection.py` sends it. Invariant: after `_pending` has
ended nothing is put, and the deadline is for the server to take what was put last.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ..errors import Refusal
from ..http.flood import FloodGuard
from ..policy.access import Access
from ..policy.identity import Identity
from ..protocol.base import Reply, Session, Verified
from ..server.app import App
from ..server.expiries import DISCONNECTED, ENDED, warn_at
from ..server.presence import Presence
from ..server.refusals import OTHER
from ..wire import http1
from .pending import Pending

__all__ = ["GOODBYE_SECONDS", "AsgiPeer"]

logger = logging.getLogger("oncecast.asgi")

GOODBYE_SECONDS = 3.0  # for the server to take the end of a stream; a peer that does not read would hold it up
OVERFLOW = Refusal("unavailable", "The server holds too many unfinished requests: send it again.", retry_after=2)

Renew = Callable[[str], Awaitable[Identity]]  # from a token to its holder. Raises `Refusal`


class AsgiPeer(ABC):
    """The peer of one request, `request`. `identity` is that of its caller."""

    def __init__(self, app: App, request: http1.Request, address: str) -> None:
        self.app = app
        self.request = request
        self.identity = Identity(address)
        self.renew: Renew | None = None  # asks the function of the application, if there is one
        self.deadline = 0.0
        self.tick = 0
        self._pending: Pending[Any] = Pending()
        self._session: Session | None = None  # gets the events of the connection
        self._asked: tuple[str, Verified] | None = None  # a token that the function has still to judge
        self._answered = False
        self._began = 0.0
        self._status = 0  # of the answer
        self._listener = OTHER  # the transport of the session, as it is counted
        self._code: int | None = None  # of the close
        self._streaming = False
        self._reads = True
        self._presence: Presence | None = None
        self._flood = FloodGuard()
        self._life: asyncio.Timeout | None = None

    @abstractmethod
    def reply(self, reply: Reply | Refusal, /) -> None:
        """Answer the request, once."""

    # -- what carries a session

    def verify(self, token: str, done: Verified, /) -> None:
        """Have `answer_token` call `done`, as the application may be asked."""
        self._asked = token, done

    async def answer_token(self) -> None:
        """Find out whom a token stands for that has come on the open connection, if one has."""
        if self._asked is None:
            return
        (token, done), self._asked = self._asked, None
        found: Identity | Refusal
        try:
            if self.renew is None:
                found = self.app.verify(token, self.identity.address)
            else:
                found = await self.renew(token)
        except Refusal as refusal:
            found = refusal.as_value()
        if not self._pending.ended:
            self._call(partial(done, found))

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity."""
        self.identity = identity
        self.app.expiries.forget(self)
        if identity.expires is not None:
            self.app.expiries.watch(self, warn_at(identity))

    @property
    def full(self) -> bool:
        """Whether the peer takes no more at the moment."""
        return self._pending.full

    def put(self, item: Any, size: int, /) -> None:
        """Send an event, a piece of a body, or a message."""
        if self._pending.put(item, size) and self._session is not None:
            self._session.blocked()

    def finish(self, last: dict[str, Any], code: int, /) -> None:
        """Send the last event, and end."""
        self._code = code
        self.app.refusals.close(code, self._listener)
        self._pending.put(last, 0)
        self._pending.end()
        self._say_goodbye()

    def stop_reading(self) -> None:
        """Drop what the peer sends from now on."""
        self._reads = False

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        return self.app.monotonic()

    def wake_at(self, when: float) -> None:
        """Set the deadline."""
        self.app.wheel.set(self, when)

    def _say_goodbye(self) -> None:
        if self._life is not None:
            self.wake_at(
                self.now() + (self.app.settings.answer_seconds if self.app.leaving is None else GOODBYE_SECONDS)
            )

    # -- a peer of the app

    def expired(self, now: float) -> None:
        """The deadline has come."""
        if self._pending.ended:  # the server has not taken what was put last
            self.abort()
        elif self._session is not None:
            self._session.woken(now)
        else:
            self.reply(Refusal("unavailable", "The answer did not come in time: try again.", retry_after=1))

    def drain(self) -> None:
        """Leave, as the server stops."""
        if self._pending.ended:
            self.wake_at(self.now() + GOODBYE_SECONDS)
        elif self._session is not None:
            self._session.drain()

    def abort(self) -> None:
        """End at once."""
        if self._life is not None:
            self._life.reschedule(asyncio.get_running_loop().time())
        self._pending.drop()

    def evict(self) -> bool:
        """Return False: the server decides how many connections there are."""
        return False

    def recheck(self, access: Access, /) -> None:
        """Hold a stream, a socket or a long poll to other access rules, and to the keys that came with them."""
        try:
            self.app.check_counts(self.identity)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if self._session is not None:
            self._session.recheck(access, self.identity)

    def disconnect(self) -> None:
        """End what belongs to the user at the other end."""
        self._refuse(DISCONNECTED)

    def look_at_expiry(self, now: float, /) -> None:
        """Warn of the end of the token, or end."""
        expires = self.identity.expires
        if not self._streaming or self._session is None or expires is None:
            return
        if now >= expires:
            self._refuse(ENDED)
            return
        if now >= warn_at(self.identity):
            self._session.expiring(expires - now)
            self.app.expiries.watch(self, expires)
        else:
            self.app.expiries.watch(self, warn_at(self.identity))

    def overflow(self) -> None:
        """Refuse what is unfinished."""
        self.reply(OVERFLOW)

    # -- helpers

    def _refuse(self, refusal: Refusal) -> None:
        """End what listens. A publish that waits for the broker gets its receipt: the message is on its way."""
        if self._session is not None:
            self._session.refuse(refusal)
        elif self.request.method in ("GET", "HEAD"):
            self.reply(refusal)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            logger.exception("a connection failed")
            self.abort()

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history. Return why it may read none now, or None."""
        return self._flood.read_page(self.app.settings, self.identity, self.now())
