"""The stream on the server: its names, its configuration, its lives, and requests to it.

Of a stream called `oncecast`:

* `oncecast.m.CHANNEL` are the messages, a `.` in a channel's name written `%`, as two dots next to each other are no
  subject. The data is `KIND SIZE TIME`, a line feed, the event in SIZE bytes, then the message's data. TIME is the
  publisher's clock in milliseconds, which counts where the server (2.9) republishes no time. A key goes as
  `Nats-Msg-Id`, as a hash, since a header can't hold every key.
* `oncecast.m.%probe` are the probes, `NODE NUMBER BASE`, with the base of the life in which the node numbers. The
  stream keeps the newest only. They are republished behind all messages before them, so a node that has heard one has
  heard all that is before it.
* `oncecast.r.>` is where the stream republishes what is stored below `oncecast.m.>`.
* `oncecast.life` are the lives of the log.
* `oncecast.t.CHANNEL` is the trimmed mark of a channel: `OFFSET TIME`.
* `oncecast.lease` says which node trims.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from ...errors import ConfigurationError
from ...message import Cursor, Draft, Mark, Message
from ..address import Address
from ..lives import Life, Lives, first_life, read_life
from ..session import Lost
from ..stored import stored_data, stored_kind, stored_message
from .asking import Asking
from .client import Answer, OrderedClient
from .fit import StreamFit

PROBE = "%probe"
NOT_FOUND = 10059  # JetStream's error codes
IN_USE = 10058
NOT_ENABLED = 10039  # for the account
NO_CLUSTER = 10074  # has the replicas that a stream asks for
PASSING = (408, 503)  # codes of what another attempt may mend
FULL = (10002, 10023, 10028, 10047)  # limits of the account or the server
WRONG_LAST = {10071, 10164}


class Stream(Asking):
    """One stream, as one client sees it."""

    def __init__(
        self, client: OrderedClient, address: Address, *, key_seconds: float, replicas: int | None, clustered: bool
    ) -> None:
        super().__init__(client, address.options.get("stream", "oncecast"), clustered=clustered)
        self._address = address
        self._fit = StreamFit(self.name, key_seconds, replicas, clustered)

    # -- names

    def subject(self, channel: str) -> str:
        """Return where a channel's messages are published."""
        return f"{self.name}.m.{token_of(channel)}"

    def republished(self, channel: str) -> str:
        """Return where a channel's messages are followed."""
        return f"{self.name}.r.{token_of(channel)}"

    # -- the stream itself

    async def prepare(self, new_epoch: Callable[[], str]) -> dict[str, Any]:
        """Make the stream if it is not there, check its configuration, and return its state.

        `new_epoch` is called before a stream is made: it raises where no log may begin.
        """
        client = self.client
        info = await self.info_or_error()
        if info.get("error", {}).get("err_code") == NOT_FOUND:
            new_epoch()
            made = await client.ask_json(f"$JS.API.STREAM.CREATE.{self.name}", self._fit.configuration())
            error = made.get("error")
            if error and error.get("err_code") != IN_USE:
                raise self._cannot(f"the stream {self.name} can't be made", error)
            info = await self.info_or_error()
        if "error" in info:
            raise self._cannot(f"the stream {self.name} can't be used", info["error"])
        misfit = self._fit.misfit(info["config"])
        if misfit is not None:
            text = f"the stream {self.name} {misfit}, or name another stream by ?stream=NAME"
            raise ConfigurationError(f"broker: {self._address}: {text}")
        return info

    async def sound(self, token: bytes) -> None:
        """Write a probe, whose acknowledgement says up to where the log is: what is read after it has all before it."""
        answer = await self.client.ask(self.subject(PROBE), token, {"Nats-Rollup": "sub"})
        refused = refusal_of(answer)
        if refused is not None:
            raise Lost(f"the stream {self.name} takes nothing: {refused}")
        self.knows(int(json.loads(answer.data)["seq"]))

    def most_bytes(self, state: dict[str, Any], max_payload: int) -> int:
        """Return how large a record may be at most, as the server and the stream have it."""
        most = int(state["config"].get("max_msg_size") or -1)
        return max_payload if most <= 0 else min(max_payload, most)

    def _cannot(self, what: str, error: dict[str, Any]) -> Exception:
        """Return what an answer of JetStream's API is raised as: `Lost` for what may pass."""
        text = f"{what}: {error.get('description', 'no reason')}"
        if error.get("err_code") == NOT_ENABLED:
            text = f"{text}: set jetstream: enabled in the account of this user"
        elif error.get("err_code") == NO_CLUSTER:
            text = f"{text}: leave ?replicas= out, or let the server be one of a cluster"
        elif error.get("code") in PASSING:
            return Lost(text)
        return ConfigurationError(f"broker: {self._address}: {text}")

    # -- its records

    async def newest(self, channel: str) -> int:
        """Return the offset of a channel's newest message, 0 without one."""
        record = await self.get({"last_by_subj": self.subject(channel)})
        return 0 if record is None else record.offset

    # -- lives

    async def open_life(
        self, server: str, new_epoch: Callable[[], str], now: float, seen: Cursor | None = None
    ) -> Lives:
        """Return the lives of the log, the last of which is of this server; a new one is written if need be.

        A log that ends before `seen`, which the node has had from it, has lost messages: this begins a life too.
        """
        for _ in range(10):
            lives, head = await self.by_one_leader(self._lives_and_head)
            above = seen.seq if seen is not None and lives and lives[0].epoch == seen.epoch else 0
            if lives and lives[-1].server == server and Lives(lives).seq_of(head) >= above:
                return Lives(lives)
            new = Lives(lives).next(head, server, now, above) if lives else first_life(new_epoch(), server, now)
            last = lives[-1].offset if lives else 0
            headers = {"Nats-Expected-Last-Subject-Sequence": str(last), "Nats-Expected-Stream": self.name}
            if lives:  # the base is counted from this head
                headers["Nats-Expected-Last-Sequence"] = str(head)
            answer = await self.client.ask(f"{self.name}.life", new.record(), headers)
            acknowledged = _acknowledgement(answer)
            if "error" in acknowledged and acknowledged["error"].get("err_code") not in WRONG_LAST:
                raise Lost(f"a life of the log can't be written: {acknowledged['error']['description']}")
        raise Lost("other nodes write the log all the time, and no life of it could begin")

    async def _lives_and_head(self) -> tuple[list[Life], int]:
        return await self._lives(), await self.last()

    async def _lives(self) -> list[Life]:
        lives: list[Life] = []
        offset = 1
        while True:
            record = await self.get({"seq": offset, "next_by_subj": f"{self.name}.life"})
            if record is None:
                return lives
            at = record.offset
            try:
                lives.append(read_life(at, record.data))
            except ValueError as error:
                text = f"the record {at} of the stream {self.name} is no life of a log: {error}"
                raise ConfigurationError(f"broker: {self._address}: {text}") from None
            offset = at + 1

    # -- marks

    async def mark(self, channel: str, lives: Lives) -> Mark:
        """Return a channel's trimmed mark."""
        record = await self.get({"last_by_subj": f"{self.name}.t.{token_of(channel)}"})
        if record is None:
            return Mark()
        offset, _, time = record.data.partition(b" ")
        return Mark(lives.seq_of(int(offset)), float(time))


# -- a message on its way


def encode_draft(draft: Draft, milliseconds: int) -> bytes:
    """Return what is published for a draft."""
    event = (draft.event or "").encode()
    return b"%d %d %d\n%b%b" % (stored_kind(draft), len(event), milliseconds, event, stored_data(draft))


def key_of(draft: Draft) -> str:
    """Return the id that a draft's key makes."""
    return hashlib.sha256(f"{draft.channel}\0{draft.key}".encode()).hexdigest()[:40]


def decode_message(channel: str, data: bytes, seq: int, time: float | None) -> Message:
    """Return the message of a record; without a `time` of the server's it is its publisher's. Raises `ValueError`."""
    head, feed, rest = data.partition(b"\n")
    kind, size, stamp = head.split(b" ")
    length = int(size)
    if not feed or not 0 <= length <= len(rest):
        raise ValueError("its head is not ours")
    when = int(stamp) / 1000 if time is None else time
    return stored_message(seq, channel, rest[length:], int(kind), rest[:length].decode() or None, when)


def token_of(channel: str) -> str:
    """Return a channel's name as one token of a subject."""
    return channel.replace(".", "%")


def channel_of(token: str) -> str:
    """Return the channel of a token."""
    return token.replace("%", ".")


def refusal_of(answer: Answer) -> str | None:
    """Return why a publish was not stored, and what to do about a limit; None where it was."""
    if answer.status == "503":
        return "the stream does not answer"
    error = json.loads(answer.data).get("error")
    if error is None:
        return None
    text = str(error.get("description", "no reason"))[:120]
    if error.get("err_code") in FULL or "maximum" in text or "exceeded" in text:
        return f"{text}: raise the limit of the stream or of its account, or keep less"
    return text


def _acknowledgement(answer: Answer) -> dict[str, Any]:
    if answer.status == "503":
        raise Lost("the stream does not answer")
    read: dict[str, Any] = json.loads(answer.data)
    return read
