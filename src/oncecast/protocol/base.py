"""The contract between a session and its carrier.

A *session* is one subscriber of one transport: it says what the transport says, message by message. A *carrier* brings
these messages to the peer: it frames them, and owns the connection. So a session runs over this project's server, over
another server (ASGI), or over another protocol, without a change. A session has no timer and no task, and reads no
clock: it asks its carrier.

The whole order of calls. The carrier

1. makes the session. The constructor subscribes, and sends what opens the transport. It raises `Refusal` before it has
   sent anything: the request is then answered with the error;
2. calls `received` for each message of the peer, and `flush` after the last one of a read (`Duplex` only);
3. calls `blocked` when the peer takes no more bytes, then `drained` when it does again; each only after the other;
4. calls `woken` once, at or after the time that the session last gave to `wake_at`, and `expiring` before the peer's
   token ends, again after the session has replaced the identity;
5. calls `ended` once, when the peer has said its last message; no `received` follows. The session sends the answers
   that it still owes, then calls `close`;
6. calls `drain` when the server stops, or `refuse` when it can't serve the session any longer, as the hub may too, or
   the peer's token has ended. The
   session says so to the peer, then calls `close`;
7. calls `closed` once, when the connection is gone or the carrier has closed it. Nothing is called after that.

The session may call `send`, `write` and `wake_at` from the constructor on, until it calls `close` or is `closed`.
What it sends during one call of the carrier goes out in one write, after that call. Between the calls the hub writes
the messages of its subscriptions: `write` with a block that the carrier's `format` has made, or directly to the
carrier's `descriptor`.

    >>> from oncecast.protocol.query import parse_query
    >>> from oncecast.protocol.v1 import V1Session
    >>> from oncecast.testing.carrier import ListCarrier, memory_node
    >>> node, turns = memory_node("e1")
    >>> carrier = ListCarrier()
    >>> session = V1Session(node, TransportSettings(), carrier, ("news",), parse_query(""))
    >>> carrier.take()
    [b'{"type":"subscribed","channel":"news","cursor":"e1-0","ref":null}']
    >>> session.received(b'{"type":"publish","channel":"news","data":1,"ref":7}', True)
    >>> carrier.take()
    []
    >>> session.flush()
    >>> carrier.take()
    [b'{"type":"published","id":"e1-1","durability":"memory","ref":7}']
    >>> turns.run_all() and carrier.take()
    [b'{"type":"message","id":"e1-1","channel":"news","data":1,"event":null,"time":1764000000.0}']
    >>> session.drain()
    >>> carrier.take(), carrier.closed_with
    ([b'{"type":"drain","retry_after_ms":1000}'], (1012, 'restarting: reconnect and resume'))
    >>> session.closed()
    >>> node.hub.subscriptions
    0

To add a transport, write its session in a file beside this one, route to it in `http/listening.py`, and run
`oncecast.testing.check_transport` over it. To add a carrier, write a class that meets `Carrier`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from ..brokers.base import Done
from ..core.node import Node
from ..core.subscription import Descriptor, Format
from ..errors import ErrorCode, Refusal
from ..message import Draft, Message
from ..policy.access import ALLOW_ALL, Access
from ..policy.identity import Identity
from ..policy.limits import Limits
from ..policy.quotas import Quotas

HEARTBEAT_HEADER = "Oncecast-Heartbeat"  # of the answer that opens a stream or a socket: seconds between heartbeats
KEPT_CHARS = 256  # of a client's text whose reading is remembered: a cache is bounded in bytes only where its keys are
TAGS = 100  # of an If-None-Match that are read (RFC 9110 §13.1.2): past them, an answer may be one that the client has
DRAIN_MS = 1000  # after this a client of a stopping server connects again: a successor is ready by then


class Clock(Protocol):
    """The carrier's clock and alarm."""

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        ...

    def wake_at(self, when: float) -> None:
        """Call the session's `woken` at this time, once; a later call replaces an earlier one."""
        ...


class Encoder(Protocol):
    """How a transport says a message of the log. One object for each kind, as its carriers' formats are cached."""

    def payload(self, message: Message, epoch: str, /) -> bytes:
        """Return the message as one protocol message, without framing."""
        ...

    def is_text(self, message: Message, /) -> bool:
        """Return whether the payload is text, in UTF-8."""
        ...

    def __hash__(self) -> int: ...  # carriers keep a format for each encoder


Verified = Callable[[Identity | Refusal], None]


class Carrier(Clock, Protocol):
    """What carries one session's messages. No method but `identify` raises."""

    @property
    def identity(self) -> Identity:
        """The peer of the connection; the access rules are asked with it."""
        ...

    def verify(self, token: str, done: Verified, /) -> None:
        """Find out whom a token stands for at the peer's address, and call `done` once: at once, or later.

        While it is not called, no `received` follows: what the peer says behind its token counts with the new identity.
        """
        ...

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity. Raises `Refusal` where that user has too many connections."""
        ...

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send a block of the carrier's own format, at once. Past what the peer takes, it calls `blocked`."""
        ...

    @property
    def descriptor(self) -> Descriptor | None:
        """What the hub may send blocks to while the session is not `blocked`, or None."""
        ...

    @property
    def full(self) -> bool:
        """Whether the peer takes no more bytes at the moment."""
        ...

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history for this connection. Return why it may read none now, or None."""
        ...

    def format(self, encoder: Encoder, /) -> Format:
        """Return the hub's format for an encoder: the same object for all carriers that can share its blocks."""
        ...

    def send(self, payload: bytes, /) -> None:
        """Send one text message, in UTF-8: in one write with the others of this call, or at once."""
        ...

    def stop(self) -> None:
        """Read nothing more of what the peer sends; `close` follows."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection after what was sent, with a WebSocket close code where the carrier can say one."""
        ...


class Session(Protocol):
    """What a carrier calls on every session. The module's docstring has the order."""

    def blocked(self) -> None:
        """The peer takes no more bytes."""
        ...

    def drained(self) -> None:
        """The peer takes bytes again."""
        ...

    def woken(self, now: float, /) -> None:
        """The time asked for has come."""
        ...

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """Other access rules hold: obey them from now on, and end where they refuse this peer what it reads."""
        ...

    def expiring(self, seconds: float, /) -> None:
        """The peer's token ends in this number of seconds: say so, where the transport can."""
        ...

    def drain(self) -> None:
        """The server is stopping: say so, and close."""
        ...

    def refuse(self, refusal: Refusal, /) -> None:
        """The hub or the server can't serve the session any longer: close, with the error's code."""
        ...

    def closed(self) -> None:
        """The connection is gone, or about to be closed. Nothing is called after this."""
        ...


class Duplex(Session, Protocol):
    """A session whose peer sends messages too."""

    def received(self, payload: bytes, is_text: bool, /) -> None:
        """A message of the peer has come. `payload` is UTF-8 where `is_text`."""
        ...

    def flush(self) -> None:
        """No more messages have come for now: do what `received` has collected."""
        ...

    def ended(self) -> None:
        """The peer has closed or has broken the protocol: send what is owed, then close."""
        ...

    def count_frame(self) -> None:
        """A frame without a message has come, such as a ping: count it, and close past the rate of frames."""
        ...


class NoteRefusal(Protocol):
    """What hears of a refusal that a peer gets, for the audit log."""

    def __call__(self, error: ErrorCode, identity: Identity, channel: str | None = None, /, *, how: str) -> None:
        """Note it. `channel` is what was asked for; `how` says by what it is refused, such as `frame`."""
        ...


class Review(Protocol):
    """What looks at the messages that clients publish, once they are allowed, and before the broker has them."""

    def publish(
        self,
        owner: object,
        identity: Identity,
        drafts: Sequence[Draft],
        publish: Callable[[Sequence[Draft], Done], None],
        done: Done,
        /,
    ) -> None:
        """Hand what is accepted, changed or not, to `publish`, and call `done` once with an outcome for each draft.

        What one `owner` gives comes to `publish` in the order in which it was given.
        """
        ...

    def leave(self, owner: object, /) -> None:
        """Drop what an owner has given and has not been looked at, as its connection has closed. It hears of nothing
        any more: no `done` of its own is called.
        """
        ...


class TransportSettings(Limits, frozen=True, kw_only=True):
    """What the transports are set to: the limits, compression of WebSocket messages (`deflate`), the access rules.

    Without `quotas` there is no limit past that of each connection. `refused` hears of the refusals that are sent as a
    part of an answer or as a frame; of the others the server knows. With a `review` all that clients publish passes it.
    """

    deflate: bool = False
    access: Access = ALLOW_ALL
    quotas: Quotas | None = None
    refused: NoteRefusal | None = None
    review: Review | None = None

    def note_limited(self, name: str) -> None:
        """Count what a limit of one connection has refused, by the name of its setting."""
        if self.quotas is not None:
            self.quotas.refused[name] += 1


def publish(
    node: Node, settings: TransportSettings, owner: object, identity: Identity, drafts: Sequence[Draft], done: Done
) -> None:
    """Publish what a client has sent, as `Node.publish` does, past the review if there is one."""
    if settings.review is None:
        node.publish(drafts, done)
    else:
        settings.review.publish(owner, identity, drafts, node.publish, done)


@lru_cache(maxsize=8)  # sessions share their settings, which are those of the last few reloads
def with_access(settings: TransportSettings, access: Access) -> TransportSettings:
    """Return these settings with other access rules."""
    return msgspec.structs.replace(settings, access=access)


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer to a request that is not a stream."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


JSON_HEADERS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))


def json_reply(status: int, body: bytes, *headers: tuple[str, str]) -> Reply:
    """Return an answer in JSON. It ends its line, so that a terminal's prompt stands on the next one."""
    return Reply(status, headers + JSON_HEADERS, body + b"\n")
