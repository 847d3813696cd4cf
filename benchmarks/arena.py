"""A server and its floor, each with subscribers and a publisher of its own, to be measured alternately.

The floor sends as many bytes per send as the server, in frames or events that the same subscriber program reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from oncecast.wire.ws_frames import Opcode, encode_frame

from .base import number, numbers
from .processes import Bench, Program, ServerProcess

__all__ = ["Arena", "Rounds", "fill", "payload", "publisher_request", "request", "subscriber_request"]

BATCH = 50  # messages in one write, to fill a log
CHANNEL = "bench@@@@@"  # `sink` writes a number over the marks
KEY = "b25jZWNhc3QgaXMgb25jZQ=="  # any 16 bytes, RFC 6455 §4.1
MARKED = b"^00000000"
GREETING = b"HTTP/1.1 200 OK\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Rounds:
    """The result of rounds. `micros` has, for each round, the time from its publish to its last delivery."""

    deliveries: int
    bytes: int
    micros: list[float]
    seconds: float


class Arena:
    """A server, and subscribers of it. `mode` is how `sink` reads: websocket (oncecast.v1), sse, or frames (raw)."""

    def __init__(
        self,
        bench: Bench,
        server: ServerProcess,
        mode: str,
        *,
        data_bytes: int = 60,
        channel: str = CHANNEL,
        tls: bool = False,
    ) -> None:
        self._bench = bench
        self.server = server
        self.mode = mode
        self.sink = bench.sink(server.port, mode, tls=tls)
        self._tls = tls
        self.count = 0
        self._channels = 1
        self.channel = channel
        self._data_bytes = data_bytes
        self._floor: Program | None = None
        self._floor_sink: Program | None = None

    def subscribe(self, count: int, *, channels: int = 1, each: int = 1, headers: str = "") -> dict[str, object]:
        """Add `count` subscribers, spread over `channels` channels. Each listens to `each` of them."""
        name = ",".join([self.channel] * each)
        request = self._bench.file(subscriber_request(self.mode, name, headers=headers))
        answer = self.sink.command(f"subscribe {count} {request} {channels // each} 0 0")
        self.count += count
        self._channels = channels
        return answer

    def stalled(self, count: int, buffer: int) -> None:
        """Add subscribers with a small receive buffer. They read nothing until `resume`."""
        request = self._bench.file(subscriber_request(self.mode, self.channel))
        self.sink.command(f"subscribe {count} {request} 1 {buffer} 1")

    def publisher(self, *, headers: str = "") -> None:
        """Connect the publisher, on a WebSocket of its own."""
        request = self._bench.file(publisher_request(headers=headers))
        self.sink.command(f"publisher {request} {self._bench.file(payload(self._data_bytes, self.channel))}")

    def rounds(self, count: int, *, batch: int = 1) -> Rounds:
        """Run `count` rounds: publish `batch` messages, then wait for all deliveries. The channels take turns."""
        return _rounds(self.sink.command(f"rounds {count} {batch} {self._channels} 0"))

    def arrivals(self, count: int) -> Rounds:
        """Publish `count` messages, one at a time, and take the time of each arrival from the kernel.

        The subscribers read each message only after all must have it, so that reading takes nothing of that time.
        """
        return _rounds(self.sink.command(f"arrivals {count}"))

    def cost(self, rounds: int, *, batch: int = 1) -> float:
        """Return the server's CPU microseconds for one delivery, with its share of the publishes."""
        return self.round_cost(rounds, batch=batch) * self._channels / self.count / batch

    def round_cost(self, rounds: int, *, batch: int = 1) -> float:
        """Return the server's CPU microseconds for one round."""
        before = self.server.cpu_ns()
        self.rounds(rounds, batch=batch)
        return (self.server.cpu_ns() - before) / rounds / 1000

    def floor(self, *, batch: int = 1) -> None:
        """Start the floor, with the server's number of subscribers and the size of its sends."""
        probe = self.rounds(2, batch=batch)
        block = floor_block(self.mode, round(probe.bytes / probe.deliveries)) * batch
        self._floor = self._bench.floor(self.count, tls=self._tls)
        port = int(number(self._floor.answer(), "port"))
        self._floor.command(f"greeting {self._bench.file(GREETING)}")
        self._floor.command(f"block {self._bench.file(block)}")
        self._floor_sink = self._bench.sink(port, self.mode, tls=self._tls)
        request = self._bench.file(GREETING)  # the floor answers any request
        self._floor_sink.command(f"subscribe {self.count} {request} 1 0 0")
        self._floor_sink.command(f"publisher {request} -")

    def floor_rounds(self, count: int, *, batch: int = 1) -> Rounds:
        """Run `count` rounds on the floor."""
        assert self._floor_sink is not None
        return _rounds(self._floor_sink.command(f"rounds {count} {batch} 1 0"))

    def floor_cost(self, rounds: int, *, batch: int = 1) -> float:
        """Return the CPU microseconds of one send() in the bare loop, divided by `batch`."""
        assert self._floor is not None
        before = self._floor.command("cpu")
        self.floor_rounds(rounds, batch=batch)
        after = self._floor.command("cpu")
        sends = number(after, "sends") - number(before, "sends")
        return (number(after, "loop_ns") - number(before, "loop_ns")) / sends / batch / 1000


def fill(bench: Bench, server: ServerProcess, channel: str, count: int) -> str:
    """Publish `count` messages to a channel, without pauses, and return the cursor before them."""
    cursor = server.request("POST", f"/v1/channels/{channel.replace('@', '0')}", b'{"t":0}')["id"]
    publisher = bench.sink(server.port, "websocket")
    publisher.command(f"publisher {bench.file(publisher_request())} {bench.file(payload(60, channel))}")
    publisher.command(f"rounds {count // BATCH} {BATCH} 1 0")
    return str(cursor)


# -- bytes


def subscriber_request(mode: str, channel: str = CHANNEL, *, query: str = "", headers: str = "") -> bytes:
    """Return the request of a subscriber."""
    return request(f"/v1/channels/{channel}{query}", mode, headers)


def publisher_request(*, headers: str = "") -> bytes:
    """Return the request of the publisher: a connection without a channel."""
    return request("/v1/connect", "websocket", headers)


def payload(data_bytes: int, channel: str = CHANNEL) -> bytes:
    """Return the frame that publishes JSON of `data_bytes` bytes: the mark, the number, and words up to the size."""
    head, tail = b'{"n":"^########","text":"', b'"}'
    words = b"the quick brown fox jumps over the lazy dog and runs "
    rest = max(0, data_bytes - len(head) - len(tail))
    data = head + (words * (rest // len(words) + 1))[:rest] + tail
    return b'{"type":"publish","channel":"' + channel.encode() + b'","data":' + data + b"}"


def floor_block(mode: str, size: int) -> bytes:
    """Return `size` bytes that `sink` reads as one message."""
    if mode == "sse":
        return b"data: " + MARKED + b"x" * (size - 17) + b"\n\n"
    head = 2 if size < 128 else 4
    body = MARKED if mode == "websocket" else b""
    return encode_frame(Opcode.TEXT, (b'{"type":"message",' + body).ljust(size - head, b"x")[: size - head])


def request(target: str, mode: str, headers: str = "") -> bytes:
    """Return the request of a path."""
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1"]
    if mode == "sse":
        lines.append("Accept: text/event-stream")
    else:
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"]
    if mode == "websocket":
        lines.append("Sec-WebSocket-Protocol: oncecast.v1")
    return "\r\n".join([*lines, *([headers] if headers else []), "", ""]).encode()


def _rounds(answer: dict[str, object]) -> Rounds:
    return Rounds(
        int(number(answer, "deliveries")),
        int(number(answer, "bytes")),
        numbers(answer, "micros"),
        number(answer, "seconds"),
    )
