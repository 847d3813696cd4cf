"""What becomes of a subscription's gaps: they are counted, reported, and never skipped in silence.

An application sees gaps with `events()` or `batch()`, by `on_gap`, or by a callback of the client for `gap`. One that
uses none of these passes gaps while it iterates, so a warning is logged for each; with `on_gap="raise"` the iteration
raises `GapError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

from ..errors import OncecastError
from .callbacks import call_back, check_callback
from .values import Gap

__all__ = ["GapError", "GapWatch", "OnGap"]

logger = logging.getLogger("oncecast.client")

OnGap = Callable[[Gap], object] | Literal["raise"] | None


class GapError(OncecastError):
    """Messages were missed: `gap` says which. Raised with `on_gap="raise"`; iterating again goes on behind the gap."""

    def __init__(self, gap: Gap) -> None:
        super().__init__(f"{_sentence(gap)}. Reload what the channel is about, then iterate on")
        self.gap = gap


class GapWatch:
    """The gaps of one subscription: how many, the last, and what is done with each.

    `tell` hands a gap to the client's listeners; `heard` says whether there are any.
    """

    def __init__(self, tell: Callable[[Gap], None], heard: Callable[[], bool], on_gap: OnGap = None) -> None:
        self.count = 0
        self.last: Gap | None = None
        self._tell = tell
        self._heard = heard
        self._on_gap: OnGap = None
        self.on_gap = on_gap

    @property
    def on_gap(self) -> OnGap:
        """A function that is called with each gap, or `"raise"`, or None."""
        return self._on_gap

    @on_gap.setter
    def on_gap(self, on_gap: OnGap) -> None:
        if on_gap is not None and on_gap != "raise":
            check_callback("on_gap", on_gap)
        self._on_gap = on_gap

    def taken(self, gap: Gap) -> None:
        """Count a gap that is handed out, and call back."""
        self.count += 1
        self.last = gap
        self._tell(gap)
        if callable(self._on_gap):
            call_back("on_gap", self._on_gap, gap)

    def skipped(self, gap: Gap) -> None:
        """Note that an iteration over messages alone passes this gap. Raises `GapError` where that is asked for."""
        if self._on_gap == "raise":
            raise GapError(gap)
        if self._on_gap is None and not self._heard():
            logger.warning(
                "%s. Reload what the channel is about; handle gaps by on_gap or events() to do so at once",
                _sentence(gap),
            )


def _sentence(gap: Gap) -> str:
    ends = f"{gap.missed_from or 'the beginning'} to {gap.missed_to or 'an unknown end'}"
    return f"channel {gap.channel} has a gap ({gap.reason}): messages {ends} were missed"
