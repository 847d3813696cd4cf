"""A stand-in for a client of a NATS cluster, some of whose answers lack the newest records.

`stale_from` chooses the questions that are answered so, by their number. With `beside` it is a restarted member of
NATS 2.9, which answers about the stream before its leader does, and names no leader. Without, it is a new leader that
has not applied all of its log: a publish is acknowledged once it has (but for `applies`).
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from oncecast.brokers.nats.client import Answer, Handler

STREAM = "s"
SECONDS = 1_700_000_000
TIME = "2023-11-14T22:13:20Z"
NO_RECORD = {"code": 404, "err_code": 10037, "description": "no message found"}
CONFIGURATION = {
    "subjects": ["s.m.>", "s.t.>", "s.life", "s.lease"],
    "republish": {"src": "s.m.>", "dest": "s.r.>"},
    "retention": "limits",
    "storage": "file",
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "num_replicas": 3,
    "duplicate_window": 10**12,
}


class Stored(NamedTuple):
    """A record of the stand-in's log."""

    offset: int
    subject: str
    data: bytes


class StaleCluster:
    """See the module. `lag` is the offset at which the stale answers end. `handler` gets what is republished."""

    def __init__(self, *, beside: bool = False, lag: int = 0) -> None:
        self._server_info = {"jetstream": True, "version": "2.9.10", "cluster": "c", "max_payload": 1 << 20}
        self.handler: Handler = lambda subject, data, headers: None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.log: list[Stored] = []
        self.last = 0
        self.purges: list[dict[str, Any]] = []
        self.refuses: dict[str, dict[str, Any]] = {}  # by subject: the error that a publish gets
        self.applies = True
        self.lag = lag
        self._beside = beside
        self._stale = range(0)
        self._questions = 0
        self._leader = "n0"
        self._listening: set[str] = set()
        self._consumers: dict[str, list[Stored]] = {}
        self._receivers: dict[str, Callable[[Answer], None]] = {}

    def store(self, subject: str, data: bytes, *, rollup: bool = False) -> int:
        """Store a record, and return its offset."""
        self.last += 1
        self.log = [record for record in self.log if not (rollup and record.subject == subject)]
        self.log.append(Stored(self.last, subject, data))
        return self.last

    def stale_from(self, begin: int, length: int) -> None:
        """Give stale answers to that number of questions, after `begin` others from now on."""
        self._questions, self._stale = 0, range(begin, begin + length)

    # -- as a client

    async def listen(self, subjects: Sequence[str]) -> None:
        """Subscribe."""
        self._listening.update(subjects)

    async def ask(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Answer a question, or store a record."""
        if subject.startswith("$JS.API."):
            answer = self._answer(subject.removeprefix("$JS.API."), json.loads(data or b"{}"))
        else:
            answer = self._publish(subject, data, headers or {})
        return Answer(json.dumps(answer).encode(), {}, "", "")

    async def ask_json(self, subject: str, question: object = None) -> dict[str, Any]:
        """Answer a question."""
        answer = await self.ask(subject, b"" if question is None else json.dumps(question).encode())
        read: dict[str, Any] = json.loads(answer.data)
        return read

    async def send(
        self, subject: str, data: bytes, headers: dict[str, str] | None, answered: Callable[[Answer], None]
    ) -> str:
        """Store a record."""
        answered(await self.ask(subject, data, headers))
        return ""

    async def tell(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send what a consumer has."""
        if ".MSG.NEXT." not in subject:
            return
        ahead, count = self._consumers[subject.rpartition(".")[2]], json.loads(data)["batch"]
        for record in ahead[:count]:
            self._receivers[reply](Answer(record.data, {}, "", f"$JS.ACK.s.c.1.{record.offset}.1.{SECONDS}000000000.0"))
        if len(ahead) < count:
            self._receivers[reply](Answer(b"", {}, "404", ""))
        del ahead[:count]

    async def receiver(self, answered: Callable[[Answer], None]) -> tuple[int, str]:
        """Return where a consumer may send."""
        self._receivers[reply := f"r{len(self._receivers)}"] = answered
        return 0, reply

    async def end_receiver(self, number: int) -> None:
        """Do nothing."""

    def forget(self, reply: str) -> None:
        """Do nothing."""

    async def shut(self) -> None:
        """Do nothing."""

    def end(self, error: Exception) -> None:
        """Be lost."""
        if not self.lost.done():
            self.lost.set_exception(error)
            self.lost.exception()

    # -- inside

    def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> dict[str, Any]:
        if subject in self.refuses:
            return {"error": self.refuses[subject]}
        if not self._beside and self.applies and self._questions in self._stale:
            self._stale = range(0)
        before = max((record.offset for record in self.log if record.subject == subject), default=0)
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None and int(expected) != before:
            return {"error": {"code": 400, "err_code": 10071, "description": f"wrong last sequence: {before}"}}
        offset = self.store(subject, data, rollup="Nats-Rollup" in headers)
        republished = subject.replace("s.m.", "s.r.", 1)
        if republished in self._listening:
            numbers = {b"Nats-Sequence": b"%d" % offset, b"Nats-Last-Sequence": b"%d" % before}
            asyncio.get_running_loop().call_soon(self.handler, republished, data, numbers)
        return {"stream": STREAM, "seq": offset}

    def _answer(self, subject: str, question: dict[str, Any]) -> dict[str, Any]:
        stale = self._questions in self._stale
        self._questions += 1
        api = subject.removesuffix(f".{STREAM}")
        leader: str | None = self._leader
        if stale and self._beside:
            leader, stale = None, api == "STREAM.INFO"
        elif stale:
            leader = self._leader = "n1"
        last = min(self.lag, self.last) if stale else self.last
        log = [record for record in self.log if record.offset <= last]
        match api:
            case "STREAM.INFO":
                state: dict[str, Any] = {"last_seq": last, "bytes": 0}
                wanted = question.get("subjects_filter", "").removesuffix(">")
                found = [record.subject for record in log if wanted and record.subject.startswith(wanted)]
                state["subjects"] = {name: found.count(name) for name in found}
                cluster: dict[str, Any] = {"name": "c", "leader": leader, "replicas": []}
                return {"config": CONFIGURATION, "created": TIME, "state": state, "cluster": cluster}
            case "STREAM.MSG.GET":
                return _record(log, question)
            case "STREAM.PURGE":
                self.purges.append(question)
            case "CONSUMER.CREATE":
                config = question["config"]
                first = int(config.get("opt_start_seq", 1))
                ahead = [each for each in log if each.subject == config["filter_subject"] and each.offset >= first]
                self._consumers[name := f"c{len(self._consumers)}"] = ahead
                return {"name": name, "num_pending": len(ahead)}
        return {}


def _record(log: list[Stored], question: dict[str, Any]) -> dict[str, Any]:
    """Return the record that is asked for."""
    first, subject = question.get("seq", 1), question.get("next_by_subj") or question.get("last_by_subj")
    found = [record for record in log if record.offset >= first and subject in (None, record.subject)]
    if "last_by_subj" in question:
        found = found[-1:]
    if not found or (subject is None and found[0].offset != first):
        return {"error": NO_RECORD}
    offset, subject, data = found[0]
    encoded = base64.b64encode(data).decode()
    return {"message": {"subject": subject, "seq": offset, "time": TIME, "data": encoded}}
