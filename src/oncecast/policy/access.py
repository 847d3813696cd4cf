"""Who may listen to and publish to which channels: the one place where that is asked.

`Access` allows everything. To add rules, derive from it and raise a `Refusal` (`unauthorized` or `forbidden`). The
routes ask it before anything of a request is answered, from memory too, and the sessions of `protocol` before they act
on a frame. Both methods are called on the event loop for each request: they must not block.
"""

from __future__ import annotations

from .identity import Identity


class Access:
    """Allows every identity everything."""

    __slots__ = ()

    fixed = False
    """Whether what these rules allow an identity never changes: who was allowed a poll is not asked about it again."""

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        """Raise `Refusal` unless this identity may read all of these channels, their history too."""

    def is_public(self, channels: tuple[str, ...], /) -> bool:
        """Return whether everybody may read all of these channels, so that nobody needs to be asked about."""
        return type(self) is Access

    def publish(self, identity: Identity, channel: str, /) -> None:
        """Raise `Refusal` unless this identity may publish to this channel."""


ALLOW_ALL = Access()
