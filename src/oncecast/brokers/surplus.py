"""Which channels may hold well over what is to be kept, found without a question to the store at each message.

Invariant: a channel is named once it may hold `COUNT_MESSAGES` and an eighth of what is kept beyond that. Past
`COUNTED_CHANNELS` the counts are dropped: `dropped` then says that each channel is to be looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..message import Message, RetentionPolicy

COUNT_MESSAGES = 64
COUNTED_CHANNELS = 100_000


class Surplus:
    """The messages of each channel since it was last named. `policy` gives a channel's retention by its name."""

    def __init__(self, policy: RetentionPolicy) -> None:
        self.dropped = True  # until each channel has been looked at once
        self._policy = policy
        self._appended: Counter[str] = Counter()

    def count(self, messages: Sequence[Message]) -> list[tuple[str, int]]:
        """Count messages, and return the channels to look at, with the number of messages that is kept of each."""
        self._appended.update(message.channel for message in messages)
        found: list[tuple[str, int]] = []
        for name in {message.channel for message in messages}:
            keep = self._policy(name).messages
            if self._appended[name] > keep // 8 + COUNT_MESSAGES:
                del self._appended[name]
                found.append((name, keep))
        if len(self._appended) > COUNTED_CHANNELS:
            self._appended.clear()
            self.dropped = True
        return found
