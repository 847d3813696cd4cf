"""A carrier that records what a session sends, and a node in memory: the tools to test a session by itself.

`ListCarrier` records the messages in order and unframed, so that a test compares them directly. Invariant: it raises an
`AssertionError` if a session sends after `close`.
"""

from __future__ import annotations

from ..brokers.memory import MemoryBroker
from ..core.node import ChannelPolicy, Node
from ..core.subscription import Format
from ..errors import Refusal
from ..message import Message
from ..policy.identity import Identity
from ..protocol.base import Encoder, Verified
from .clock import FakeClock, Turns
from .driver import run_now

__all__ = ["ListCarrier", "memory_node"]


class _Payloads:
    """A format whose blocks are the payloads, one after the other, each after its length in 4 bytes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def message(self, message: Message, epoch: str) -> bytes:
        payload = self._encoder.payload(message, epoch)
        return len(payload).to_bytes(4, "big") + payload

    def block(self, parts: list[bytes]) -> bytes:
        return b"".join(parts)


class ListCarrier:
    """A carrier in memory. `wake` is the time that the session asked for. With `fills` the next block fills it."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.identity = Identity(address="127.0.0.1")
        self.descriptor = None
        self.full = False
        self.wake: float | None = None
        self.stopped = False
        self.closed_with: tuple[int, str] | None = None
        self._clock = clock or FakeClock()
        self._sent: list[bytes] = []
        self._formats: dict[Encoder, Format] = {}

    def verify(self, token: str, done: Verified, /) -> None:
        """Call `done` with a user of that name, whose token ends never, or with a refusal of an empty one."""
        if token:
            done(Identity(self.identity.address, token, "token"))
        else:
            done(Refusal("unauthorized", "There is no token."))

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity."""
        self.identity = identity

    def now(self) -> float:
        """Return the clock's seconds."""
        return self._clock.monotonic()

    def wake_at(self, when: float) -> None:
        """Keep the time."""
        self.wake = when

    def may_read(self) -> None:
        """Let the session read."""

    def format(self, encoder: Encoder, /) -> Format:
        """Return a format of payloads."""
        return self._formats.setdefault(encoder, _Payloads(encoder))

    def write(self, block: bytes, /) -> None:
        """Record the payloads of a block."""
        while block:
            end = 4 + int.from_bytes(block[:4], "big")
            self.send(block[4:end])
            block = block[end:]

    def send(self, payload: bytes, /) -> None:
        """Record a message."""
        assert self.closed_with is None, "a message after close"
        self._sent.append(payload)

    def stop(self) -> None:
        """Record that nothing more is to be read."""
        self.stopped = True

    def close(self, code: int, reason: str) -> None:
        """Record the code and the reason."""
        assert self.closed_with is None, "closed twice"
        self.closed_with = (code, reason)

    def take(self) -> list[bytes]:
        """Return the messages that were sent since the last call."""
        sent, self._sent = self._sent, []
        return sent


def memory_node(epoch: str, clock: FakeClock | None = None, broker: MemoryBroker | None = None) -> tuple[Node, Turns]:
    """Return a node with an empty log in memory, and the turns that deliver its messages."""
    clock, turns = clock or FakeClock(), Turns()
    node = Node(
        broker or MemoryBroker(epoch, clock.wall),
        policy=lambda channel: ChannelPolicy(),
        max_bytes=1 << 20,
        monotonic=clock.monotonic,
        schedule=turns.schedule,
    )
    run_now(node.start())
    return node, turns
