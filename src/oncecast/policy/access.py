"""The access check: whether an identity may subscribe or publish to a channel. All code asks it here.

`Access` allows everything. To add rules, derive from it and raise a `Refusal` (`unauthorized` or `forbidden`). The
routes ask it before they answer a request, from memory too, and the sessions of `protocol` before they act
on a frame. Both methods are called on the event loop for each request: they must not block.
"""

from __future__ import annotations

from .identity import Identity


class Access:
    """Allows every identity everything."""

    __slots__ = ()

    fixed = False
    """Whether the verdict for an identity never changes, so that a repeated poll is not checked again."""

    def subscribe(self, identity: Identity, channels: tuple[str, ...], /) -> None:
        """Raise `Refusal` unless this identity may read all of these channels, their history too."""

    def is_public(self, channels: tuple[str, ...], /) -> bool:
        """Return whether everybody may read all of these channels, so that `subscribe` need not be called."""
        return type(self) is Access

    def publish(self, identity: Identity, channel: str, /) -> None:
        """Raise `Refusal` unless this identity may publish to this channel."""


ALLOW_ALL = Access()
