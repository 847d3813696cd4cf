"""The users who were disconnected lately, for requests whose user was not known yet at that moment.

While an application is asked who makes a request, a disconnection does not find the request among the connections of
its user. So who asks takes note of the `count` before, and looks here at the answer.

Invariant: at most `KNOWN` users are kept. Where older ones had to be forgotten, a question from before they were
counts as one about each of them.
"""

from __future__ import annotations

__all__ = ["KNOWN", "LatelyEnded"]

KNOWN = 10_000  # users, about 2 MiB; a question takes seconds


class LatelyEnded:
    """The disconnections, by user. `count` is how many there have been."""

    def __init__(self) -> None:
        self.count = 0
        self._last: dict[str, int] = {}  # which one a user's last was, the oldest first
        self._forgotten = 0  # the newest that is not kept

    def note(self, subject: str) -> None:
        """Count the disconnection of a user."""
        self.count += 1
        self._last.pop(subject, None)
        self._last[subject] = self.count
        if len(self._last) > KNOWN:
            self._forgotten = self._last.pop(next(iter(self._last)))

    def since(self, subject: str, count: int) -> bool:
        """Return whether a user was, or may have been, disconnected after the first `count` disconnections."""
        return self._last.get(subject, self._forgotten) > count
