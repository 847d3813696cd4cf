"""The flood guard of one connection: its publishes, and its pages of the broker's history.

Invariant: each refusal is counted by its limit's name. A connection makes its guard at the first use, and the guard its
buckets, as an idle connection needs none.
"""

from __future__ import annotations

from ..errors import Refusal
from ..policy.bucket import Bucket, PublishBuckets
from ..policy.identity import Identity
from ..policy.quotas import too_many
from ..protocol.base import TransportSettings

__all__ = ["FloodGuard"]


class FloodGuard:
    """What one connection may still publish and read. Time is passed in, in seconds."""

    __slots__ = ("_pages", "_publishes")

    def __init__(self) -> None:
        self._publishes: PublishBuckets | None = None
        self._pages: Bucket | None = None

    def spend_publishes(self, settings: TransportSettings, now: float, count: int, size: int) -> None:
        """Count messages and their bytes. Raises `Refusal` (`too_many_requests`)."""
        if self._publishes is None:
            self._publishes = PublishBuckets(settings.publishes_per_second, settings.bytes_per_second, now)
        over, seconds = self._publishes.take(now, count, size)
        if seconds:
            settings.note_limited(over)
            raise too_many(over, getattr(settings, over), seconds)

    def read_page(self, settings: TransportSettings, identity: Identity, now: float) -> Refusal | None:
        """Count a page of the history. Return why the connection may read none now, or None."""
        if self._pages is None:
            self._pages = Bucket.steady(settings.history_pages_per_second, now)
        if seconds := self._pages.take(now):
            settings.note_limited("history_pages_per_second")
            return too_many("history_pages_per_second", self._pages.rate, seconds)
        if settings.quotas is not None:
            try:
                settings.quotas.read_page(identity, now)
            except Refusal as refusal:
                return refusal
        return None
