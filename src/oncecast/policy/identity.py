"""The identity of a client: its address, its user or server, and what its credentials grant.

Each request has an identity of its own: a connection that a proxy keeps open carries the requests of several users. A
stream or a socket keeps the identity of its handshake; an `auth` frame of `oncecast.v1` may replace it.

What credentials grant is not all that is allowed: `access.py` compares it with the rules of the channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import getsizeof
from typing import Literal

from .channels import matches

__all__ = ["ANYBODY", "Identity", "IdentityKind", "Patterns", "grant_bytes"]

POINTER_BYTES = 8

Patterns = tuple[str, ...]  # channel names, prefixes and `*`, or `*`: see `channels.is_pattern`
IdentityKind = Literal["anybody", "token", "server"]


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a client. The defaults are those of a client without credentials.

    `address` is the client's IP address as text, "" where the socket has none. `kind` says what was proved: nothing
    (`anybody`), by a `token` that it is a user, or by a key that it is a `server` of the operator, which may do
    everything. `subject` is the user that a token names (`sub`, RFC 7519 §4.1.2), or the name of a server's key.

    `subscribe` and `publish` are the channels that a token grants, with `{sub}` filled in. None says that the token
    does not mention channels, so that only the rules of the channels decide. `issued` is when the token was made, at
    the earliest, and `expires` when it counts no more, in Unix seconds; None for what has no end. `key_hash` is that of
    a server's key, as its name may be given to another one.
    """

    address: str = ""
    subject: str | None = None
    kind: IdentityKind = "anybody"
    subscribe: Patterns | None = None
    publish: Patterns | None = None
    issued: float | None = None
    expires: float | None = None
    key_hash: bytes = field(default=b"", repr=False, compare=False)

    def lasts(self, now: float) -> bool:
        """Return whether it still counts at this time, in Unix seconds."""
        return self.expires is None or now < self.expires

    def may_subscribe(self, channel: str) -> bool:
        """Return whether the credentials grant to read this channel. True where they do not mention channels."""
        return self.subscribe is None or any(matches(pattern, channel) for pattern in self.subscribe)

    def may_publish(self, channel: str) -> bool:
        """Return whether the credentials grant to publish to this channel. True where they do not mention channels."""
        return self.publish is None or any(matches(pattern, channel) for pattern in self.publish)


def grant_bytes(subject: str | None, subscribe: Patterns | None, publish: Patterns | None) -> int:
    """Return how many bytes of memory a subject and patterns take, the tuples' own headers apart."""
    texts = (subject or "", *(subscribe or ()), *(publish or ()))
    return sum(getsizeof(text) + POINTER_BYTES for text in texts)


ANYBODY = Identity()
