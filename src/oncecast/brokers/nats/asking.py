"""The requests to the stream, and how an answer that lacks the newest records is recognized.

After a restart, a member of a NATS 2.9 cluster answers `STREAM.INFO` with the state of its own disk, until it knows the
stream's leader. The leader answers too, and the client takes the first answer. The member's answer has the same form,
but names no leader. Three rules reject answers that lack records:

* `info_or_error` repeats a request whose answer names no leader.
* `known` is the highest offset that the log has acknowledged or republished. `info_or_error` repeats a request whose
  answer ends below it.
* `by_one_leader` reads between two answers of one leader, both of which reach `known`. A leader does not lose records
  while it is the leader, so the reading has all records that the first answer had.

A single server has no such state, so it is asked once.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from ..session import Lost
from .client import NatsHeaders, OrderedClient

NO_RECORD = 10037  # JetStream's error code
BEHIND_TRIES = 60  # requests, until the answer has what the log has
BEHIND_SECONDS = 0.05
LEADERS = 5  # attempts to read; a change of the leader interrupts one

T = TypeVar("T")


class Record(NamedTuple):
    """A record of the stream. `time` is the server's, in Unix seconds."""

    subject: str
    data: bytes
    time: float
    offset: int = 0


class Asking:
    """See the module. `clustered` says that the stream has replicas."""

    def __init__(self, client: OrderedClient, name: str, *, clustered: bool) -> None:
        self.client = client
        self.name = name
        self.clustered = clustered
        self.known = 0

    def knows(self, offset: int) -> None:
        """Raise `known` to an offset that was acknowledged or republished: the log has all records up to it."""
        self.known = max(self.known, offset)

    async def info(self, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the stream's state, which reaches `known`. Raises `Lost`."""
        info = await self.info_or_error(question)
        if "error" in info:
            raise Lost(f"the stream {self.name}: {info['error']['description']}")
        return info

    async def info_or_error(self, question: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the leader's answer: the stream's state, which reaches `known`, or an error. Raises `Lost`."""
        known, lacking = self.known, ""
        for _ in range(BEHIND_TRIES):
            info = await self.client.ask_json(f"$JS.API.STREAM.INFO.{self.name}", question)
            if not self.clustered or "error" in info:
                return info
            if not _leader_of(info)[0]:
                lacking = f"the stream {self.name} has no leader"
            elif int(info["state"]["last_seq"]) < known:
                lacking = f"the leader of the stream {self.name} lacks the record {known}, which was acknowledged"
            else:
                return info
            await asyncio.sleep(BEHIND_SECONDS)
        raise Lost(lacking)

    async def last(self) -> int:
        """Return the offset of the newest record."""
        return int((await self.info())["state"]["last_seq"])

    async def by_one_leader(self, read: Callable[[], Awaitable[T]]) -> T:
        """Return what `read` finds at one leader that has all records up to `known`. May call it again."""
        if not self.clustered:
            return await read()
        leader = _leader_of(await self.info())
        for _ in range(LEADERS):
            found = await read()
            before, leader = leader, _leader_of(await self.info())
            if before == leader:
                return found
        raise Lost(f"the stream {self.name} has another leader all the time")

    async def record(self, offset: int) -> Record | None:
        """Return the record at an offset, None if it was removed."""
        return await self._ask_leader({"seq": offset})

    async def get(self, question: dict[str, Any]) -> Record | None:
        """Return a record by its place or subject, None if there is none.

        In a cluster the leader is asked, as a replica that answers directly may not have the newest records yet.
        """
        if self.clustered:
            return await self._ask_leader(question)
        answer = await self.client.ask(f"$JS.API.DIRECT.GET.{self.name}", json.dumps(question).encode())
        if answer.status == "404":
            return None
        if answer.status:
            raise Lost(f"the stream {self.name} can't be read: status {answer.status}")
        headers = answer.headers
        subject, offset = headers[b"Nats-Subject"].decode(), int(headers[b"Nats-Sequence"])
        return Record(subject, answer.data, time_of(headers) or 0.0, offset)

    async def _ask_leader(self, question: dict[str, Any]) -> Record | None:
        answer = await self.client.ask_json(f"$JS.API.STREAM.MSG.GET.{self.name}", question)
        error = answer.get("error")
        if error is not None:
            if error.get("err_code") == NO_RECORD:
                return None
            raise Lost(f"the stream {self.name} can't be read: {error.get('description', 'no reason')}")
        found = answer["message"]
        data = base64.b64decode(found.get("data", ""))
        return Record(found["subject"], data, moment_of(found["time"]), int(found["seq"]))


def time_of(headers: NatsHeaders) -> float | None:
    """Return a record's time in Unix seconds, in whole milliseconds; None if the server does not send it."""
    text = headers.get(b"Nats-Time-Stamp")
    return None if text is None else moment_of(text.decode())


def moment_of(text: str) -> float:
    """Return a time in the server's format as Unix seconds, in whole milliseconds."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds_of(seconds * 10**9 + int(f"{fraction:0<9.9}"))


def seconds_of(nanoseconds: int) -> float:
    """Return a time as Unix seconds, in whole milliseconds. A float of so many nanoseconds may round to another one."""
    return (nanoseconds + 500_000) // 1_000_000 / 1000


def _leader_of(info: dict[str, Any]) -> tuple[str, str]:
    """Return the leader's name, "" without one, and since when it leads, "" with a server of 2.9."""
    cluster = info.get("cluster") or {}
    return str(cluster.get("leader") or ""), str(cluster.get("leader_since") or "")
