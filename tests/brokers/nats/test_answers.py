"""Errors, odd answers and silence of NATS: each ends a session or a page with a line that says which it was."""

from __future__ import annotations

import asyncio
from typing import Any

import nats.errors
import pytest
import pytest_asyncio

from oncecast.brokers.nats import client as module
from oncecast.brokers.nats import pages
from oncecast.brokers.nats.client import Answer, OrderedClient
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError
from oncecast.message import EARLIEST
from tests.brokers.nats.stale import StaleCluster
from tests.brokers.nats.test_stale import LAST, Bench

REFUSED = {"code": 500, "err_code": 1, "description": "no"}
WRONG_LAST = {"code": 400, "err_code": 10071, "description": "wrong last sequence"}


class OddCluster(StaleCluster):
    """Answers questions as a test says: `errors` by the begin of their subject, `pending` of each consumer.

    A consumer sends nothing if it is `silent`, and says that there is nothing if it is `empty`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[str, dict[str, Any]] = {}
        self.pending = 0
        self.silent = self.empty = False

    def _answer(self, subject: str, question: dict[str, Any]) -> dict[str, Any]:
        for begin, error in self.errors.items():
            if subject.startswith(begin):
                return {"error": error}
        if subject.startswith("CONSUMER.INFO."):
            return {"num_pending": self.pending}
        return super()._answer(subject, question)

    async def tell(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send what a consumer has."""
        if self.silent:
            return
        if self.empty and ".MSG.NEXT." in subject:
            self._receivers[reply](Answer(b"", {}, "404", ""))
            return
        await super().tell(subject, data, reply)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (REFUSED, "a life of the log can't be written: no"),
        (WRONG_LAST, "other nodes write the log all the time"),
    ],
)
async def test_a_life_that_is_not_taken(monkeypatch: pytest.MonkeyPatch, error: dict[str, Any], said: str) -> None:
    """A node that has had more than the log holds begins a life; if it can't, it is not back."""
    bench = Bench(monkeypatch, client := OddCluster())
    bench.place.seen = 10 * LAST
    client.refuses["s.life"] = error
    with pytest.raises(Lost, match=said):
        await bench.session.open(["a"])
    assert [] == bench.handed.calls


async def test_a_record_of_a_life_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of the log can't be known then: the line names the record, and trying again does not help."""
    bench = Bench(monkeypatch, client := OddCluster())
    offset = client.store("s.life", b"foreign")
    with pytest.raises(ConfigurationError, match=f"the record {offset} of the stream s is no life of a log"):
        await bench.session.open(["a"])


@pytest.mark.parametrize(
    ("begin", "said"),
    [("CONSUMER.CREATE.", "the stream s can't be read: no"), ("CONSUMER.INFO.", "the stream s can't be read: no")],
)
async def test_a_consumer_that_is_refused(monkeypatch: pytest.MonkeyPatch, begin: str, said: str) -> None:
    """The page ends with the server's reason."""
    bench = Bench(monkeypatch, client := OddCluster())
    await bench.session.open(["a"])
    client.empty = True
    client.errors[begin] = REFUSED
    with pytest.raises(Lost, match=said):
        await bench.page(EARLIEST)


async def test_a_consumer_that_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch has a deadline. Messages that are counted and not sent are asked for a few times, and no more."""
    monkeypatch.setattr(pages, "FETCH_SECONDS", 0.01)
    bench = Bench(monkeypatch, client := OddCluster())
    await bench.session.open(["a"])
    client.silent = True
    with pytest.raises(Lost, match=r"a page did not come within 0\.01 s"):
        await bench.page(EARLIEST)
    client.silent, client.empty, client.pending = False, True, 5
    with pytest.raises(Lost, match="has 5 messages that it does not send"):
        await bench.page(EARLIEST)


# -- the connection


@pytest_asyncio.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> OrderedClient:
    """A connection whose server answers nothing."""

    async def publish(*arguments: object) -> None:
        return

    monkeypatch.setattr(module, "ASK_SECONDS", 0.01)
    monkeypatch.setattr(OrderedClient, "_send_publish", publish)
    return OrderedClient(lambda subject, data, headers: None)


async def test_a_question_that_is_not_answered(client: OrderedClient) -> None:
    """It has a deadline, and ends at once with the connection."""
    with pytest.raises(Lost, match=r"no answer to \$JS\.API\.STREAM within 0\.01 s"):
        await client.ask("$JS.API.STREAM.INFO")
    client.end(Lost("gone"))
    with pytest.raises(Lost, match="gone"):
        await client.ask("$JS.API.STREAM.INFO")
    assert {} == client._waiting


async def test_nobody_answers_for_jetstream(client: OrderedClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says that there is no responder: the line says how to start it."""

    async def ask(*arguments: object) -> Answer:
        return Answer(b"", {}, "503", "")

    monkeypatch.setattr(client, "ask", ask)
    with pytest.raises(Lost, match="JetStream does not answer: start the server with -js"):
        await client.ask_json("$JS.API.INFO")


@pytest.mark.parametrize(
    ("error", "said"),
    [(nats.errors.ConnectionClosedError(), "connection closed"), (OSError(), "its connection was closed")],
)
async def test_a_write_that_fails(client: OrderedClient, error: Exception, said: str) -> None:
    """The session is lost, with one line."""

    async def write() -> None:
        raise error

    with pytest.raises(Lost, match=said):
        await client._guard(write())


async def test_a_cancellation_that_the_library_swallows(client: OrderedClient) -> None:
    """A task that is cancelled while the library flushes ends all the same."""
    begun = asyncio.Event()

    async def flush() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    task = asyncio.create_task(client._guard(flush()))
    await begun.wait()
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()


async def test_a_handler_that_fails_ends_the_connection(client: OrderedClient) -> None:
    """What follows a message that was not taken would overtake it: nothing more is handed over."""
    taken: list[str] = []

    def handle(subject: str, data: bytes, headers: object) -> None:
        taken.append(subject)
        raise ValueError("not taken")

    client._handler = handle
    client._ids.add(1)
    for _ in range(2):
        await client._process_msg(1, b"s", b"", b"", b"")
    assert ["s"] == taken
    with pytest.raises(ValueError, match="not taken"):
        client.lost.result()
