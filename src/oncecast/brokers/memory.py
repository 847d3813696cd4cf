"""The broker of one process: it numbers messages and keeps nothing but the keys it has seen.

Invariant: sequence numbers go up by one, times never go down, and a publish is answered before `publish` returns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ..errors import UsageError
from ..message import Draft, Message, Receipt
from .base import KEY_SECONDS, STOPPING, Done, History, Opening, Outcome, Sink

KEYS = 100_000  # idempotency keys remembered; the oldest goes first


class MemoryBroker:
    """One process, nothing kept on disk: a restart is a new epoch.

    `wall` gives Unix seconds. `epoch` names this life of the log, 1 to 32 of `[A-Za-z0-9_]`; make a new one for each
    start (`new_epoch`), or cursors of an earlier life would be taken for this one's.
    """

    durability = "memory"
    history: History | None = None

    def __init__(self, epoch: str, wall: Callable[[], float], *, key_seconds: float = KEY_SECONDS) -> None:
        self.epoch = epoch
        self._wall = wall
        self._key_seconds = key_seconds
        self._seq = 0
        self._time = 0.0
        self._keys: OrderedDict[tuple[str, str], tuple[float, Receipt]] = OrderedDict()
        self._sink: Sink | None = None
        self._closed = False

    def open(self, sink: Sink) -> Opening:
        """Begin to hand every new message to `sink`."""
        if self._sink is not None:
            raise UsageError("This broker is open already: one broker serves one node.")
        self._sink = sink
        return Opening()

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts and answer at once."""
        if self._sink is None:
            raise UsageError("Open the broker before publishing.")
        if self._closed:
            done([STOPPING] * len(drafts))
            return
        # Milliseconds are what the wire shows; a clock that steps back must not make `since` miss a message.
        now = round(self._wall(), 3)
        if now < self._time:
            now = self._time
        self._time = now
        if self._keys:
            self._forget_keys(now)
        outcomes: list[Outcome] = []
        messages = []
        for draft in drafts:
            key = None if draft.key is None else (draft.channel, draft.key)
            if key is not None and (seen := self._keys.get(key)):
                outcomes.append(seen[1])
                continue
            self._seq += 1
            messages.append(Message(self._seq, draft.channel, draft.data, draft.kind, draft.event, now))
            receipt = Receipt(self.epoch, self._seq, self.durability)
            outcomes.append(receipt)
            if key is not None:
                self._keys[key] = (now, receipt)
        if messages:
            self._sink.receive(messages)
        done(outcomes)

    def close(self) -> None:
        """Stop taking publishes."""
        self._closed = True

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            oldest = next(iter(self._keys.values()))
            if len(self._keys) < KEYS and oldest[0] + self._key_seconds > now:
                return
            self._keys.popitem(last=False)


def new_epoch(random: bytes) -> str:
    """Return an epoch's name from at least 8 random bytes: 10 characters of base 36, short in every id."""
    number = int.from_bytes(random[:8], "big")
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    name = ""
    for _ in range(10):
        number, digit = divmod(number, 36)
        name += digits[digit]
    return name
