"""The answers to polls that were given a moment ago.

Clients that poll send the same head again and again, and the parser gives the same `Request` object for it. So as long
as the log has not changed, its answer is the bytes of the last time.

Invariant: an answer is given again only for the same request, the same version of the log, and the same second, which
is what its Date says.
"""

from __future__ import annotations

from ..wire.http1 import Request

ANSWERS = 1024  # of different polls within one second and one version of the log; past that all are forgotten
ANSWER_BYTES = 4096  # an answer with nothing new has about 250; long ones are cheap to make next to being sent


class Memo:
    """Answers by request. `version` and `second` say for when: with others, everything is forgotten."""

    __slots__ = ("_answers", "_second", "_version")

    def __init__(self) -> None:
        self._answers: dict[int, tuple[Request, bytes]] = {}
        self._version = self._second = -1

    def get(self, request: Request, version: int, second: int) -> bytes | None:
        """Return the answer that `put` was given for this very request object, or None."""
        if version != self._version or second != self._second:
            self._answers.clear()
            self._version, self._second = version, second
            return None
        # By identity: the entry holds the request, so its id can't be another's meanwhile.
        known = self._answers.get(id(request))
        return known[1] if known is not None else None

    def put(self, request: Request, answer: bytes) -> None:
        """Keep the answer made since the last `get`."""
        if len(answer) <= ANSWER_BYTES:
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            self._answers[id(request)] = (request, answer)
