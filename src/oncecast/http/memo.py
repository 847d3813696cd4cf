"""The polls that were answered a moment ago: the verdict of the rules on each, and the bytes of its answer.

Clients that poll send the same head again and again, and the parser gives the same `Request` object for it. Host and
origin are part of the head, so the verdict on them holds for the object; and as long as the log has not changed, so
does the answer. Its credentials are part of the head too, and prove the same as before (`Service.recognize`). Access is
asked each time, for the channels that the entry names. Only channels that everybody may read need no question, which
the entry knows (`public`).

Invariant: an entry exists only for a request that the rules of its `Memo` allow, and that the parser keeps: of one with
a body or a long head the next is another object. An answer is given again only for the same request, the same version
of the log, and the same second, which is what its Date says.
"""

from __future__ import annotations

from ..policy.identity import Identity
from ..wire.http1 import MEMO_BYTES, Request

ANSWERS = 512  # different polls within one second, as many as the parser keeps; past that all are dropped
ANSWER_BYTES = 4096  # an answer with nothing new has about 250; a long one costs more to send than to make


class KnownPoll:
    """A poll that the rules allow, and its answer: `channels` are what it reads.

    `identity` is whom its credentials have proved; None where the server takes none. A poll by a ticket is not kept, as
    it counts once.
    """

    __slots__ = ("answer", "channels", "identity", "public", "request", "version")

    def __init__(
        self,
        request: Request,
        channels: tuple[str, ...],
        answer: bytes,
        version: int,
        *,
        public: bool,
        identity: Identity | None,
    ) -> None:
        self.public = public
        self.identity = identity
        self.request = request
        self.channels = channels
        self.answer = answer
        self.version = version


class Memo:
    """Polls by their request. One `Memo` belongs to one set of rules, which may let it keep none (`keeps`)."""

    __slots__ = ("_keeps", "_polls", "_second")

    def __init__(self, *, keeps: bool = True) -> None:
        self._keeps = keeps
        self._polls: dict[int, KnownPoll] = {}
        self._second = -1

    def get(self, request: Request, version: int, second: int) -> KnownPoll | None:
        """Return what `put` was given for this very request object, at this version of the log and in this second."""
        if second != self._second:
            self._polls.clear()
            self._second = second
            return None
        # By identity: the entry holds the request, so its id can't be another's meanwhile.
        known = self._polls.get(id(request))
        return known if known is not None and known.version == version else None

    def put(self, poll: KnownPoll, second: int) -> None:
        """Keep an answer that was made in this second, to a request that may come again."""
        if self._keeps and second == self._second and len(poll.answer) <= ANSWER_BYTES and _may_come(poll.request):
            if len(self._polls) >= ANSWERS:
                self._polls.clear()
            self._polls[id(poll.request)] = poll


def _may_come(request: Request) -> bool:
    """Return whether the parser may give this very object again. An entry holds its request, so this bounds both."""
    headers = request.headers
    size = len(request.target) + len("".join(headers)) + len("".join(headers.values()))
    return size <= MEMO_BYTES and not request.body
