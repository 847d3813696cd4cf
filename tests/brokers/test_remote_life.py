"""The life of a broker on another machine, whatever its sessions do: how it begins, fails, comes back and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio

from oncecast.brokers import remote
from oncecast.brokers.base import AWAY, BrokerUnreachable, Capabilities, Opening, Outcome
from oncecast.brokers.operable import LogState
from oncecast.brokers.remote_publishes import FLYING, UNKNOWN
from oncecast.brokers.session import GuardedSink, Lost, SinkFailed
from oncecast.errors import ConfigurationError, Refusal, UsageError
from oncecast.message import EARLIEST, Draft, Page, Retention, Start
from oncecast.testing.broker_bench import BrokerBench, Lab

PAGE = Page(0, [], 0, {}, {})


class Script:
    """What the next sessions do: `opening`, `paging` and `closing` are raised, if anything is, or waited for."""

    def __init__(self) -> None:
        self.opening: list[BaseException | asyncio.Event | None] = []  # one for each session; then nothing
        self.paging: BaseException | asyncio.Event | None = None
        self.closing: BaseException | asyncio.Event | None = None
        self.ending: asyncio.Event | None = None  # what tends takes as long to end
        self.appending: BaseException | None = None
        self.asked = 0  # pages
        self.sessions: list[Played] = []

    def make(self, sink: GuardedSink) -> Any:
        """Return the next session."""
        self.sessions.append(Played(self, sink))
        return self.sessions[-1]


async def play(what: BaseException | asyncio.Event | None) -> None:
    """Raise it, or wait for it."""
    if isinstance(what, asyncio.Event):
        await what.wait()
    elif what is not None:
        raise what


class Played:
    """A session; `lost` ends it."""

    def __init__(self, script: Script, sink: GuardedSink) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = 0
        self.gone = False  # closed to the end
        self._script = script
        self._sink = sink

    async def open(self, wanted: Sequence[str]) -> None:
        """Open."""
        await play(self._script.opening.pop(0) if self._script.opening else None)
        self._sink.begin(Opening("e"))

    async def follow(self) -> None:
        """Follow until it is lost."""
        await asyncio.shield(self.lost)

    async def tend(self) -> None:
        """Tend nothing."""
        try:
            await asyncio.Event().wait()
        finally:
            await play(self._script.ending)

    def append(self, drafts: Sequence[Draft]) -> asyncio.Future[Sequence[Outcome]]:
        """Never answer."""
        if self._script.appending is not None:
            raise self._script.appending
        return asyncio.get_running_loop().create_future()

    async def page(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Answer with a page."""
        self._script.asked += 1
        await play(self._script.paging)
        return PAGE

    def want(self, channels: Sequence[str]) -> None:
        """Want nothing."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Unwant nothing."""

    async def close(self) -> None:
        """Close."""
        self.closed += 1
        await play(self._script.closing)
        self.gone = True


class Operated(Played):
    """A session that can be looked into."""

    async def inspect(self) -> LogState:
        """Say it."""
        await play(self._script.paging)
        return LogState("operated", 0)

    async def channels(self) -> list[Any]:
        """Say it."""
        return []

    async def trim(self, channel: str, retention: Retention) -> Any:
        """Say it."""
        return channel


class Noted(BrokerBench):
    """A sink that keeps each reason."""

    reasons: list[str]

    def away(self, reason: str, /) -> None:
        """Note it."""
        self.reasons.append(reason)
        super().away(reason)


class Life:
    """A broker of scripted sessions, and its sink."""

    def __init__(self, script: Script, make: Callable[[GuardedSink], Any] | None = None) -> None:
        self.script = script
        capabilities = Capabilities("broker", history=True, only_wanted=True)
        self.broker = remote.Remote(
            make or script.make, name="stand-in", capabilities=capabilities, batch_drafts=10, open_seconds=0.2
        )
        self.sink = Noted(self.broker, Lab(lambda: self.broker))
        self.sink.reasons = []

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(30):
            while not holds():  # noqa: ASYNC110 - the condition is anything
                await asyncio.sleep(0.001)

    async def read(self, channels: str = "a") -> Page | Refusal:
        """Read a page."""
        answered: asyncio.Future[Page | Refusal] = asyncio.get_running_loop().create_future()
        self.broker.read(channels, EARLIEST, 1, 1, answered.set_result)
        return await asyncio.wait_for(answered, 30)

    async def publish(self) -> Outcome:
        """Publish a message."""
        answered: asyncio.Future[Sequence[Outcome]] = asyncio.get_running_loop().create_future()
        self.broker.publish([Draft("a", b"1")], answered.set_result)
        (outcome,) = await asyncio.wait_for(answered, 30)
        return outcome

    def lose(self, error: Exception) -> None:
        """End the session that runs."""
        self.script.sessions[-1].lost.set_exception(error)


@pytest_asyncio.fixture
async def life(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Life]:
    """A broker that tries again at once, and waits for little."""
    monkeypatch.setattr(remote, "PAUSES", (0.0,))
    monkeypatch.setattr(remote, "CLOSE_SECONDS", 0.05)
    life = Life(Script())
    yield life
    await life.broker.stop()
    assert all(session.closed == 1 for session in life.script.sessions)


@pytest.mark.parametrize(
    "fault, kind, words",
    [
        (Lost("it refuses"), BrokerUnreachable, "broker: stand-in: it refuses"),
        (SinkFailed("it is full"), ConfigurationError, "broker: stand-in: it is full"),
        (ConfigurationError("broker: wrong"), ConfigurationError, "broker: wrong"),
        (None, BrokerUnreachable, "broker: stand-in: it did not answer within 0.2 s"),
    ],
)
async def test_a_start_that_fails(life: Life, fault: Exception | None, kind: type[Exception], words: str) -> None:
    """The error is one line, and the session is closed."""
    life.script.opening = [fault or asyncio.Event()]
    with pytest.raises(kind) as raised:
        await life.broker.start(life.sink)
    assert str(raised.value) == words
    assert isinstance(await life.publish(), Refusal)


async def test_it_is_started_once(life: Life) -> None:
    """A second start raises."""
    await life.broker.start(life.sink)
    with pytest.raises(UsageError):
        await life.broker.start(life.sink)


async def test_it_is_stopped_while_it_is_started(life: Life) -> None:
    """The start fails, and its session is closed."""
    go = asyncio.Event()
    life.script.opening = [go]
    start = asyncio.create_task(life.broker.start(life.sink))
    await life.until(lambda: bool(life.script.sessions))
    await life.broker.stop()
    go.set()
    with pytest.raises(ConfigurationError, match="it was stopped while it was started"):
        await start


@pytest.mark.parametrize("slow", ["ending", "closing"])
async def test_it_is_stopped_while_a_lost_session_closes(
    life: Life, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """The session is closed completely."""
    monkeypatch.setattr(remote, "CLOSE_SECONDS", 30.0)
    go = asyncio.Event()
    setattr(life.script, slow, go)
    await life.broker.start(life.sink)
    (session,) = life.script.sessions
    life.lose(Lost("gone"))
    if slow == "closing":
        await life.until(lambda: session.closed == 1)
    else:
        await asyncio.sleep(0.01)
    stop = asyncio.create_task(life.broker.stop())
    await asyncio.sleep(0.01)
    go.set()
    await stop
    assert session.gone


async def test_it_is_stopped_while_a_session_that_failed_closes(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that could not be opened is closed completely."""
    monkeypatch.setattr(remote, "CLOSE_SECONDS", 30.0)
    await life.broker.start(life.sink)
    life.script.opening = [asyncio.Event()]  # it takes too long
    life.lose(Lost("gone"))
    await life.until(lambda: len(life.script.sessions) == 2)
    life.script.closing = go = asyncio.Event()
    await life.until(lambda: life.script.sessions[1].closed == 1)
    stop = asyncio.create_task(life.broker.stop())
    await asyncio.sleep(0.01)
    go.set()
    await stop
    assert life.script.sessions[1].gone


async def test_each_reason_is_said_once(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    """Each new reason is on `/readyz`, and an exception is in the log with its traceback."""
    await life.broker.start(life.sink)
    wrong = ConfigurationError("broker: stand-in: it evicts")
    life.script.opening = [Lost("gone"), Lost("gone"), wrong, wrong, KeyError("defect"), KeyError("defect")]
    life.lose(Lost("gone"))
    await life.until(lambda: life.broker.opened == 2 and life.sink.unready is None)
    assert life.sink.reasons == [f"stand-in: {reason}" for reason in ("gone", "it evicts", "KeyError('defect')")]
    assert caplog.text.count("Traceback") == 1
    assert await life.read() == PAGE


async def test_a_task_that_fails_is_a_lost_session(life: Life, caplog: pytest.LogCaptureFixture) -> None:
    """A defect in a session is logged with its traceback; what is asked for meanwhile is refused, then all goes on."""
    await life.broker.start(life.sink)
    life.script.closing = RuntimeError("it does not close")
    life.lose(ValueError("defect"))
    await life.until(lambda: life.broker.opened == 2)
    assert "a task of the broker has failed: oncecast-broker-follow" in caplog.text
    assert "could not be closed" in caplog.text
    life.script.closing = asyncio.Event()
    life.lose(Lost("gone"))
    await life.until(lambda: life.broker.opened == 3)
    life.script.closing = None


async def test_a_session_that_just_ends(life: Life) -> None:
    """A session that ends without an error counts as lost."""
    await life.broker.start(life.sink)
    life.script.opening = [asyncio.Event()]
    life.script.sessions[-1].lost.set_result(None)
    await life.until(lambda: life.sink.unready == "stand-in: its connection was closed")


@pytest.mark.parametrize("when", ["running", "reopening"])
async def test_a_sink_that_fails_ends_the_broker(life: Life, when: str) -> None:
    """A node that did not take a message must not go on as if it had."""
    await life.broker.start(life.sink)
    if when == "reopening":
        life.script.opening = [SinkFailed("it is full")]
    life.lose(SinkFailed("it is full") if when == "running" else Lost("gone"))
    await life.until(lambda: bool(life.sink.failures))
    assert life.sink.failures == ["broker: stand-in: it is full"]
    for answer in (await life.publish(), await life.read()):
        assert isinstance(answer, Refusal)


async def test_what_a_lost_session_was_asked_for_is_refused(life: Life) -> None:
    """A read and a publish that lose their session are refused, and the next ones are asked of the next session."""
    await life.broker.start(life.sink)
    life.script.paging = Lost("gone")
    assert AWAY == await life.read()
    life.script.paging = None
    await life.until(lambda: life.broker.opened == 2)
    assert PAGE == await life.read()
    life.script.appending = RuntimeError("defect")
    assert UNKNOWN == await life.publish()
    life.script.appending = None
    await life.until(lambda: life.broker.opened == 3)
    assert PAGE == await life.read()


async def test_what_waits_when_a_session_is_lost_is_refused(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads behind those that hang, and publishes behind as many batches as may be under way, are answered too."""
    monkeypatch.setattr(remote, "READERS", 1)
    await life.broker.start(life.sink)
    life.script.paging = asyncio.Event()
    reads = [asyncio.create_task(life.read(channels)) for channels in ("a", "a", "b")]
    publishes = []
    for _ in range(FLYING + 1):
        publishes.append(asyncio.create_task(life.publish()))
        await asyncio.sleep(0.001)  # else they are one batch
    await life.until(lambda: life.script.asked == 1)
    life.lose(Lost("gone"))
    assert [AWAY] * 3 == [await read for read in reads]
    assert [UNKNOWN] * FLYING + [AWAY] == [await publish for publish in publishes]


async def test_what_a_person_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a session that can't say, one that is late, one that is lost, and none at all."""
    monkeypatch.setattr(remote, "OPERATE_SECONDS", 0.02)
    plain = Life(Script())
    with pytest.raises(Refusal, match="The broker cannot be reached"):
        await plain.broker.inspect()
    await plain.broker.start(plain.sink)
    with pytest.raises(UsageError, match="can't be asked for the state of its log"):
        await plain.broker.inspect()
    await plain.broker.stop()
    script = Script()
    life = Life(script, lambda sink: Operated(script, sink))
    await life.broker.start(life.sink)
    assert (await life.broker.inspect(), await life.broker.channels()) == (LogState("operated", 0), [])
    assert str(await life.broker.trim("a", Retention())) == "a"
    for fault, words in ((asyncio.Event(), "did not answer within 0.02 s"), (Lost("gone"), "stand-in: gone")):
        script.paging = fault
        with pytest.raises(Refusal, match=words):
            await life.broker.inspect()
    await life.broker.stop()
