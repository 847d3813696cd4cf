"""Who a connection speaks for, and from where. It is made once, when the connection is, and travels with it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """The peer of a connection.

    `address` is the peer's IP address as text, "" where the socket has none. `subject` names the user that a token
    proves; None for anybody.
    """

    address: str = ""
    subject: str | None = None


ANYBODY = Identity()
