"""What brokers on other machines share: their life from connecting to stopping, away and back, and what waits for them.

`Remote` is the broker as the node sees it. Each kind of broker has a `RemoteSession` (`session.py`): one connection to
its server, from `open` to the first fault. `Remote` owns the tasks:

* `_live` opens a session, runs it until it is lost, tells the sink that the broker is away, and opens the next one.
* Of a session: `follow` hands messages over, `tend` probes and trims, one task sends the publishes in batches, and
  `READERS` tasks answer reads.

Each task of a session that ends, ends the session; nothing dies unnoticed. A fault of the network is `Lost`. Another
exception is a defect: it is logged with its traceback, and the session is opened again like a lost one.

Invariants
* A publish is answered once: after its messages have reached the sink, or with a refusal.
* What waits is bounded by `intake.py` and `PENDING_READS`. A batch is answered within `APPEND_SECONDS`, a read within
  `ANSWER_SECONDS`.
* The sink is called by one task at a time: by `open`, then by `follow`.

To add a broker, write a `RemoteSession` for it and pass `Remote` a function that makes one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..errors import ConfigurationError, Refusal, UsageError
from ..message import Draft, Page, Receipt, Retention, Start
from .base import STARTING, STOP_SECONDS, STOPPING, BrokerUnreachable, Capabilities, Done, Outcome, Read, Sink
from .intake import Batch, Intake, refuse
from .meters import Meters
from .operable import ChannelState, LogState, Operable
from .reads import DEFECT, LATE, OVERRUN, PENDING_READS, ReadRequest, refuse_read
from .session import GuardedSink, Lost, RemoteSession, SinkFailed, finish

logger = logging.getLogger("oncecast.brokers.remote")

OPEN_SECONDS = 5.0  # to connect and to catch up with the head
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before each next attempt to open; the last one stays
READERS = 4  # pages asked for at once
FLYING = 4  # batches sent and not yet answered
READ_SECONDS = 10.0  # for one page
APPEND_SECONDS = 10.0  # for one batch
CLOSE_SECONDS = 3.0  # for a session to close its sockets
OPERATE_SECONDS = 60.0  # for what a person asks: 10,000 channels are counted one by one

T = TypeVar("T")

_UNKNOWN = Refusal(
    "unavailable",
    "The connection to the broker was lost before it answered: publish again with the same key.",
    retry_after=1,
)
_AWAY = Refusal("unavailable", "The broker cannot be reached now: try again in a moment.", retry_after=1)


class Remote:
    """A broker on another machine.

    `make` makes a session for a sink. `name` says in one line, without a password, where it is. Publishes are sent
    together until they have `batch_drafts` drafts; a session splits a batch that its server can't take at once.
    `open_seconds` bounds the opening of a session.
    `forget` is called with channels that are unwanted while no session is open: what is known of them is void.
    """

    def __init__(
        self,
        make: Callable[[GuardedSink], RemoteSession],
        *,
        name: str,
        capabilities: Capabilities,
        batch_drafts: int,
        open_seconds: float = OPEN_SECONDS,
        forget: Callable[[Sequence[str]], None] = lambda channels: None,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self.opened = 0  # sessions
        self.meters = Meters()
        self._make = make
        self._open_seconds = open_seconds
        self._forget = forget
        self._sink: Sink | None = None
        self._refusal: Refusal | None = STARTING  # what everything is answered with, unless a session runs
        self._session: RemoteSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._intake = Intake(batch_drafts)
        self._published = asyncio.Event()
        self._reads: OrderedDict[tuple[str, ...], deque[ReadRequest]] = OrderedDict()
        self._read_count = 0
        self._asked = asyncio.Event()
        self._wanted: dict[str, None] = {}
        self._unwanted: set[str] = set()  # while a session is being opened
        self._stopped = False
        self._now: Callable[[], float] = lambda: 0.0  # the loop's clock, from the start on

    # -- what the node calls

    async def start(self, sink: Sink) -> None:
        """Connect, and begin. Raises `ConfigurationError` where that can't be done."""
        if self._sink is not None:
            raise UsageError("This broker was started already: make one for each node.")
        self._sink = sink
        self._now = asyncio.get_running_loop().time
        session = self._make(GuardedSink(sink, self.meters))
        try:
            await self._open(session)
        except Lost as lost:
            raise BrokerUnreachable(f"broker: {self.name}: {lost}") from None
        except SinkFailed as failed:
            raise ConfigurationError(f"broker: {self.name}: {failed}") from failed
        if self._stopped:
            await self._close(session)
            raise ConfigurationError(f"broker: {self.name}: it was stopped while it was started")
        self._task = asyncio.create_task(self._live(session), name="oncecast-broker")
        self._task.add_done_callback(self._ended)
        await asyncio.sleep(0)  # a task that is cancelled before its first step would not close its session

    async def stop(self) -> None:
        """Disconnect. What is not answered is refused."""
        self._stopped = True
        self._refusal = STOPPING
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,), timeout=STOP_SECONDS)
        self._refuse_all(STOPPING)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Send the drafts with the next batch."""
        if self._refusal is not None:
            self.meters.refused += len(drafts)
            done([self._refusal] * len(drafts))
        elif self._intake.put(drafts, done):
            self._published.set()

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Read a page. Reads of the same channels wait in one queue, and the queues take turns."""
        if self._refusal is not None:
            done(self._refusal)
        elif self._read_count >= PENDING_READS:
            done(OVERRUN)
        else:
            line = self._reads.setdefault(tuple(channels), deque())
            line.append(ReadRequest(channels, start, limit, max_bytes, done, self._now()))
            self._read_count += 1
            self._asked.set()

    def want(self, channels: Sequence[str]) -> None:
        """Deliver these channels, in each session."""
        if self.capabilities.only_wanted:
            self._wanted.update(dict.fromkeys(channels))
            if self._session is not None:
                self._session.want(channels)

    def unwant(self, channels: Sequence[str]) -> None:
        """Deliver these channels no longer."""
        if self.capabilities.only_wanted:
            for channel in channels:
                self._wanted.pop(channel, None)
            if self._session is not None:
                self._session.unwant(channels)
            else:
                self._unwanted.update(channels)
                self._forget(channels)

    # -- `operable.Operable`, by the session

    async def inspect(self) -> LogState:
        """Return the state of the log."""
        return await self._operate(lambda session: session.inspect())

    async def channels(self) -> list[ChannelState]:
        """Return every channel that holds a message."""
        return await self._operate(lambda session: session.channels())

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Trim a channel now."""
        return await self._operate(lambda session: session.trim(channel, retention))

    async def _operate(self, ask: Callable[[Operable], Awaitable[T]]) -> T:
        if self._session is None:
            raise _AWAY
        if not isinstance(self._session, Operable):
            raise UsageError(f"{self.name}: this kind of broker can't be asked for the state of its log.")
        try:
            async with asyncio.timeout(OPERATE_SECONDS):
                return await ask(self._session)
        except TimeoutError:
            text = f"{self.name} did not answer within {OPERATE_SECONDS:g} s: try again."
            raise Refusal("unavailable", text) from None
        except Lost as lost:
            raise Refusal("unavailable", f"{self.name}: {lost}") from None

    # -- the life of the broker

    async def _open(self, session: RemoteSession) -> None:
        """Open a session, or close what of it is open. What was wanted and unwanted meanwhile is applied to it."""
        asked = tuple(self._wanted)
        self._unwanted.clear()
        opened = False
        try:
            async with asyncio.timeout(self._open_seconds):
                await session.open(asked)
            opened = True
        except TimeoutError:
            raise Lost(f"it did not answer within {self._open_seconds:g} s") from None
        finally:
            if not opened:
                await finish(self._close(session))
        self.opened += 1
        self._session = session
        self._refusal = STOPPING if self._stopped else None
        ended = self._unwanted.intersection(asked)
        if ended:
            session.unwant(tuple(ended))
        fresh = self._wanted.keys() - (set(asked) - ended)
        if fresh:
            session.want([channel for channel in self._wanted if channel in fresh])

    async def _close(self, session: RemoteSession) -> None:
        """Close a session. One that does not close in time is left behind."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await session.close()
        except Exception:
            logger.exception("a connection to the broker %s could not be closed", self.name)

    async def _live(self, session: RemoteSession) -> None:
        assert self._sink is not None
        while True:
            reason = await self._run(session)
            self._session = None
            self._refusal = _AWAY
            logger.warning("the broker %s is away: %s", self.name, reason)
            self._sink.away(f"{self.name}: {reason}")
            self._refuse_all(_AWAY)
            session = await self._reopen(reason)
            logger.warning("the broker %s is back", self.name)
            self._sink.back()

    async def _run(self, session: RemoteSession) -> str:
        """Run a session until one of its tasks ends, close it, and return why."""
        tasks = [
            asyncio.create_task(each, name=f"oncecast-broker-{name}")
            for name, each in (
                ("follow", session.follow()),
                ("tend", session.tend()),
                ("publish", self._send(session)),
                ("expire", self._expire()),
                *((f"read-{number}", self._answer(session)) for number in range(READERS)),
            )
        ]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return _why([task for task in tasks if task in ended])
        finally:
            await finish(self._end(session, tasks))

    async def _end(self, session: RemoteSession, tasks: Sequence[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        await self._close(session)

    async def _reopen(self, reason: str) -> RemoteSession:
        assert self._sink is not None
        attempt = 0
        while True:
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1
            session = self._make(GuardedSink(self._sink, self.meters))
            try:
                await self._open(session)
            except (Lost, ConfigurationError) as error:
                text = str(error).removeprefix(f"broker: {self.name}: ")
                if text != reason:
                    reason = text
                    self._sink.away(f"{self.name}: {reason}")
                continue
            except SinkFailed:
                raise
            except Exception as error:
                if repr(error) != reason:
                    reason = repr(error)
                    logger.exception("the broker %s could not be opened", self.name)
                    self._sink.away(f"{self.name}: {reason}")
                continue
            return session

    def _ended(self, task: asyncio.Task[None]) -> None:
        """The broker's own task has ended: by `stop`, or as a defect, which ends the node."""
        if task.cancelled() or self._stopped:
            return
        error = task.exception()
        logger.error("the task of the broker %s has ended", self.name, exc_info=error)
        self._refusal = STOPPING
        self._refuse_all(STOPPING)
        assert self._sink is not None
        self._sink.fail(f"broker: {self.name}: {error}")

    # -- publishing

    async def _send(self, session: RemoteSession) -> None:
        """Send batches in order; at most `FLYING` are under way. Its end answers all of them."""
        flying: dict[asyncio.Future[Sequence[Outcome]], list[Batch]] = {}
        lost: list[BaseException] = []

        def finished(
            batches: list[Batch], deadline: asyncio.TimerHandle, sent: asyncio.Future[Sequence[Outcome]]
        ) -> None:
            deadline.cancel()
            del flying[sent]
            error = Lost("it did not acknowledge in time") if sent.cancelled() else sent.exception()
            if error is None:
                outcomes = sent.result()
                if outcomes and isinstance(newest := outcomes[-1], Receipt) and newest.seq > self.meters.head:
                    self.meters.head = newest.seq
                self.meters.refused += sum(isinstance(outcome, Refusal) for outcome in outcomes)
                _answer_batches(batches, outcomes)
            else:
                lost.append(error)
                self._refuse(batches, _UNKNOWN)
            self._published.set()

        loop = asyncio.get_running_loop()
        try:
            while not lost:
                if not self._intake or len(flying) >= FLYING:
                    self._published.clear()
                    await self._published.wait()
                    continue
                batches = self._intake.take()
                try:
                    sent = session.append([draft for batch in batches for draft in batch.drafts])
                except BaseException:
                    self._refuse(batches, _UNKNOWN)
                    raise
                flying[sent] = batches
                deadline = loop.call_later(APPEND_SECONDS, sent.cancel)
                sent.add_done_callback(partial(finished, batches, deadline))
            raise lost[0]
        finally:
            for sent in list(flying):
                sent.cancel()
            if flying:
                await asyncio.wait(list(flying), timeout=CLOSE_SECONDS)
                await asyncio.sleep(0)  # for the callbacks that answer

    def _refuse(self, batches: list[Batch], refusal: Refusal) -> None:
        self.meters.refused += sum(len(batch.drafts) for batch in batches)
        refuse(batches, refusal)

    # -- reading

    async def _answer(self, session: RemoteSession) -> None:
        while True:
            asked = self._next_read()
            if asked is None:
                self._asked.clear()
                await self._asked.wait()
                continue
            if asked.expired(self._now()):
                refuse_read(asked, LATE)
                continue
            answer: Page | Refusal = _AWAY
            try:
                async with asyncio.timeout(READ_SECONDS):
                    answer = await session.page(asked.channels, asked.start, asked.limit, asked.max_bytes)
            except TimeoutError:
                answer = LATE
            except Refusal as refusal:
                answer = refusal
            except Lost:
                raise
            except Exception:
                logger.exception("the broker %s could not read a page", self.name)
                answer = DEFECT
            finally:
                _call(asked.answer, answer)

    async def _expire(self) -> None:
        """Refuse the reads that have waited too long; a line is in the order of its deadlines."""
        while True:
            await asyncio.sleep(1)
            now = self._now()
            for channels, line in list(self._reads.items()):
                while line and line[0].expired(now):
                    self._read_count -= 1
                    refuse_read(line.popleft(), LATE)
                if not line:
                    del self._reads[channels]

    def _next_read(self) -> ReadRequest | None:
        """Take the first of the next line, and put that line behind the others."""
        if not self._reads:
            return None
        channels, line = self._reads.popitem(last=False)
        asked = line.popleft()
        if line:
            self._reads[channels] = line
        self._read_count -= 1
        return asked

    def _refuse_all(self, refusal: Refusal) -> None:
        self.meters.refused += len(self._intake)
        self._intake.refuse(refusal)
        while (asked := self._next_read()) is not None:
            refuse_read(asked, refusal)


# -- helpers


def _call(done: Callable[[Any], object], answer: object) -> None:
    """Call back; a fault in one answer is logged, and keeps no other from being given."""
    try:
        done(answer)
    except Exception:
        logger.exception("an answer could not be delivered")


def _why(ended: Sequence[asyncio.Task[None]]) -> str:
    """Return why a session is over. Raises `SinkFailed` if the node is at fault in any of the tasks."""
    errors = [None if task.cancelled() else task.exception() for task in ended]
    for failed in errors:
        if isinstance(failed, SinkFailed):
            raise failed
    task, error = ended[0], errors[0]
    if error is None:
        return "its connection was closed"
    if not isinstance(error, Lost):
        logger.error("a task of the broker has failed: %s", task.get_name(), exc_info=error)
    return str(error) or type(error).__name__


def _answer_batches(batches: list[Batch], outcomes: Sequence[Outcome]) -> None:
    at = 0
    for batch in batches:
        _call(batch.answer, outcomes[at : at + len(batch.drafts)])
        at += len(batch.drafts)
