"""The flood guard of one connection: its publishes, and its pages of the broker's history.

Invariant: each refusal is counted by its limit's name. The caller makes the buckets at their first use, as an idle
connection needs none.
"""

from __future__ import annotations

from ..errors import Refusal
from ..policy.bucket import Bucket, PublishBuckets
from ..policy.identity import Identity
from ..policy.quotas import too_many
from ..protocol.base import TransportSettings

__all__ = ["read_page", "spend_publishes"]


def spend_publishes(buckets: PublishBuckets, settings: TransportSettings, now: float, count: int, size: int) -> None:
    """Count messages and their bytes. Raises `Refusal` (`too_many_requests`)."""
    over, seconds = buckets.take(now, count, size)
    if over:
        _note(settings, over)
        raise too_many(over, getattr(settings, over), seconds)


def read_page(bucket: Bucket, settings: TransportSettings, identity: Identity, now: float) -> Refusal | None:
    """Count a page of the history. Return why the connection may read none now, or None."""
    if seconds := bucket.take(now):
        _note(settings, "history_pages_per_second")
        return too_many("history_pages_per_second", bucket.rate, seconds)
    if settings.quotas is not None:
        try:
            settings.quotas.read_page(identity, now)
        except Refusal as refusal:
            return refusal
    return None


def _note(settings: TransportSettings, name: str) -> None:
    if settings.quotas is not None:
        settings.quotas.refused[name] += 1
