"""Clauses of a transport's contract: starts, the data of messages, several channels, limits and refusals.

Each check is a coroutine of one `TransportBench` and names its clause where it fails. To add one, add it to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..message import Draft, Kind
from ..server.settings import Limits, Settings
from .subscriber import CursorSeen, Cut, MessageSeen, RequestRefused, Subscriber
from .transport_bench import TransportBench, TransportFailed, expect

__all__ = ["CHECKS", "TransportCheck"]

TransportCheck = Callable[[TransportBench], Awaitable[None]]

LOG = 30  # messages of most logs: more than one read, and few enough to test every position

DRAFTS = (
    Draft("c", b'{"t":1,"deep":[null,true,"\\u00e9"]}', Kind.JSON),
    Draft("c", b"12345678901234567890", Kind.JSON, event="tick"),
    Draft("c", b"null", Kind.JSON),
    Draft("c", "grüße \U0001f30d".encode(), Kind.TEXT, event="naïve: name"),
    Draft("c", b"", Kind.TEXT),
    Draft("c", b"one\ntwo\r\nthree\rfour\n", Kind.TEXT),
    Draft("c", b"\nid: 9\ndata: x\n\nevent: gap\n", Kind.TEXT),
    Draft("c", b" a leading space, a NUL \0 and a \t tab", Kind.TEXT),
    Draft("c", bytes(range(256)), Kind.BINARY, event="blob"),
    Draft("c", b"", Kind.BINARY),
    Draft("c", b"x" * 70_000, Kind.TEXT),
)


async def every_position(bench: TransportBench) -> None:
    """The cursor of each message of the log gives exactly the messages after it, and then new ones."""
    await bench.serve()
    bench.publish_numbers(LOG)
    listening = []
    for position in range(LOG + 1):
        subscriber = bench.subscriber(start=f"after={bench.at(position)}")
        heard = await bench.listen(subscriber, LOG - position)
        expect(bench.shown(subscriber, position + 1), heard.data, f"after message {position} come the next")
        if position == LOG:
            await bench.attach(subscriber)
        listening.append(subscriber)
    bench.publish_numbers(1)
    for subscriber in listening:
        heard = await bench.listen(subscriber, 1)
        expect(bench.shown(subscriber, LOG + 1), heard.data, "then comes what is new, once")


async def resume_at_every_position(bench: TransportBench) -> None:
    """A connection that is cut after any message resumes with the next: each message once and in order."""
    await bench.serve()
    if not bench.kind.resumes:
        return
    for count in range(LOG):
        subscriber = bench.subscriber(f"c{count}")
        first = len(bench.published)
        bench.publish_numbers(count, f"c{count}")
        heard = await bench.listen(subscriber, count)
        await bench.listen(subscriber, cursors=0 if subscriber.cursors else 1)
        subscriber.cut()
        bench.publish_numbers(LOG - count, f"c{count}")
        rest = await bench.listen(subscriber, LOG - count)
        expect(bench.shown(subscriber, first + 1), heard.data + rest.data, f"resumed after {count} messages")


async def latest(bench: TransportBench) -> None:
    """`latest` gives no message of the log, and every later one."""
    await bench.serve()
    bench.publish_numbers(LOG)
    subscriber = bench.subscriber(start="after=latest")
    await bench.attach(subscriber)
    bench.publish_numbers(3)
    heard = await bench.listen(subscriber, 3)
    expect(bench.shown(subscriber, LOG + 1), heard.data, "latest begins with what is published after it")


async def earliest_last_and_since(bench: TransportBench) -> None:
    """`earliest` gives all kept messages, `last=N` the newest N, `since=T` those not older than T; then new ones."""
    await bench.serve()
    began = []
    for _ in range(3):
        began.append(bench.now())
        bench.publish_numbers(LOG // 3)
        await bench.acknowledged()
        await bench.pass_time(10)
    starts = {
        "after=earliest": 1,
        "last=1": LOG,
        "last=7": LOG - 6,
        f"last={LOG}": 1,
        "last=1000": 1,
        f"since={_seconds(began[0] - 5)}": 1,
        f"since={_seconds(began[0])}": 1,
        f"since={_seconds(began[1] - 4.5 * bench.second)}": LOG // 3 + 1,
        f"since={_seconds(began[2])}": 2 * LOG // 3 + 1,
    }
    for start, first in starts.items():
        subscriber = bench.subscriber(start=start)
        heard = await bench.listen(subscriber, LOG + 1 - first)
        expect(bench.shown(subscriber, first), heard.data, f"{start} begins with message {first}")
        expect([], heard.gaps, f"{start} misses nothing, so it has no gap")
    for start in ("last=0", f"since={_seconds(bench.now() + 1)}"):
        subscriber = bench.subscriber("quiet", start=start)
        await bench.attach(subscriber)
        bench.publish(Draft("quiet", b"1"))
        expect([subscriber.shows(Draft("quiet", b"1"))], (await bench.listen(subscriber, 1)).data, start)


async def kinds_of_data(bench: TransportBench) -> None:
    """JSON, text and binary data arrive unaltered, live and from the log, with their event names and ids."""
    await bench.serve()
    live = bench.subscriber(start="after=latest")
    await bench.attach(live)
    for draft in DRAFTS:
        bench.publish(draft)
    for subscriber in (live, bench.subscriber()):
        heard = await bench.listen(subscriber, len(DRAFTS))
        expect(bench.shown(subscriber, 1), heard.data, "data comes as it was published")
        if subscriber.resumes:
            expect([draft.event for draft in DRAFTS], [m.event for m in heard.messages], "so do event names")
            expect(
                [bench.at(n + 1) for n in range(len(DRAFTS))], [m.id for m in heard.messages], "the id is the cursor"
            )
            expect({"c"}, {m.channel for m in heard.messages}, "the channel is named")


async def several_channels(bench: TransportBench) -> None:
    """One subscription of several channels gets each channel's messages in order, and resumes in the middle."""
    await bench.serve()
    names = ("a", "b", "other", "c")
    bench.publish(*(Draft(names[n % 4], str(n).encode()) for n in range(LOG)))
    subscriber = bench.subscriber("a", "b", "c")
    heard = await bench.listen(subscriber, LOG // 2)
    if subscriber.resumes:
        subscriber.cut()
    bench.publish(*(Draft(names[n % 4], str(n).encode()) for n in range(LOG, 2 * LOG)))
    wanted = [(d.channel, subscriber.shows(d)) for d in bench.published if d.channel != "other"]
    rest = await bench.listen(subscriber, len(wanted) - len(heard.messages))
    heard.messages += rest.messages
    if not subscriber.resumes:
        expect([data for _, data in wanted], heard.data, "several channels come in the log's order")
        return
    actual = [(m.channel, m.data) for m in heard.messages]
    if subscriber.one_cursor:
        expect(wanted, actual, "several channels come in the log's order")
    for name in subscriber.channels:
        expect([w for w in wanted if w[0] == name], [a for a in actual if a[0] == name], f"channel {name} is in order")


async def empty_channel(bench: TransportBench) -> None:
    """A subscriber of a channel without messages gets a cursor, and resumes from it."""
    await bench.serve()
    if not bench.kind.resumes:
        return
    bench.publish_numbers(LOG, "elsewhere")
    await bench.acknowledged()
    subscriber = bench.subscriber("quiet", start="after=latest")
    await subscriber.connect()
    expect([CursorSeen(bench.at(LOG))], await subscriber.receive(), "a cursor comes before any message")
    subscriber.cut()
    bench.publish_numbers(3, "quiet")
    heard = await bench.listen(subscriber, 3)
    expect(bench.shown(subscriber, LOG + 1), heard.data, "what came meanwhile is there")


async def heartbeats(bench: TransportBench) -> None:
    """Heartbeats advance the cursor of a channel without new messages, so that it does not expire."""
    await bench.serve(Settings(port=0, limits=Limits(heartbeat_seconds=0.1)))
    if not (bench.kind.streams and bench.kind.resumes):
        return
    subscriber = bench.subscriber("quiet", start="after=latest")
    await bench.attach(subscriber)
    bench.publish_numbers(LOG, "elsewhere")
    while subscriber.cursors["quiet"] != bench.at(LOG):
        seen = await subscriber.receive()
        expect([], [each for each in seen if isinstance(each, MessageSeen)], "a heartbeat is no message")


async def limits(bench: TransportBench) -> None:
    """More channels, a longer wait or a larger message than the limit are refused; `limit` bounds one poll."""
    small = Limits(channels_per_subscription=2, wait_seconds=8, message_bytes=200, poll_messages=7)
    await bench.serve(Settings(port=0, limits=small))
    bench.publish_numbers(LOG)
    await bench.acknowledged()
    await refused(bench.subscriber("a", "b", "c"), "request_invalid")
    subscriber = bench.subscriber("a", "c")
    expect(bench.shown(subscriber, 1), (await bench.listen(subscriber, LOG)).data, "as many channels as the limit")
    if bench.kind.waits:
        await refused(bench.subscriber(extra="wait=8.001"), "request_invalid")
    if bench.kind.polls:
        for extra, most in (("limit=3", 3), ("limit=1000", 7), ("", 7)):
            page = await bench.listen(bench.subscriber(extra=extra), 1)
            expect(most, len(page.messages), f"one poll has at most {extra} messages, and never over the limit")
        await refused(bench.subscriber(extra="limit=0"), "request_invalid")
    if bench.kind.writes:
        await bench.attach(subscriber := bench.subscriber())
        subscriber.write(b"x" * 201)
        try:
            while True:
                await subscriber.receive()
        except Cut as cut:
            expect(1009, cut.code, "a message over the limit closes with 1009")


async def malformed(bench: TransportBench) -> None:
    """A malformed request is refused with the code of the malformed part."""
    await bench.serve()
    bench.publish_numbers(1)
    for cursor in (
        "x",
        "life1",
        "life1-",
        "life1--1",
        "life1-01",
        "life1-1x",
        f"life1-{2**63}",
        "li.fe-1",
        "life1-9" * 9,
    ):
        await refused(bench.subscriber(start=f"after={cursor}"), "cursor_invalid")
    for channel in (".hidden", "sp%20ace", "new%0aline", "x" * 129, "caf%C3%A9"):
        await refused(bench.subscriber(channel), "channel_invalid")
    for start in ("last=-1", "after=latest&last=1"):
        if bench.kind.one_cursor:  # a URL's query
            await refused(bench.subscriber(start=start), "request_invalid")


def _seconds(time: float) -> str:
    return f"{time:.3f}".rstrip("0").rstrip(".")  # also without a fraction


async def refused(subscriber: Subscriber, code: str) -> None:
    """Expect a refusal with this code; over HTTP its status is 400."""
    try:
        await subscriber.connect()
        seen = await subscriber.receive()
        if not subscriber.one_cursor:  # its channels begin one by one: another may have its cursor first
            for _ in subscriber.channels[1:]:
                if all(isinstance(each, CursorSeen) for each in seen):
                    seen = await subscriber.receive()
    except RequestRefused as refusal:
        expect(code, refusal.code, "the refusal names its reason")
        if refusal.status:
            expect(400, refusal.status, f"{code} is answered with 400")
    else:
        raise TransportFailed(f"{subscriber.start} of {subscriber.channels} is refused: {code}\n  actual   {seen}")
    finally:
        subscriber.cut()


CHECKS: dict[str, TransportCheck] = {
    check.__name__: check
    for check in (
        every_position,
        resume_at_every_position,
        latest,
        earliest_last_and_since,
        kinds_of_data,
        several_channels,
        empty_channel,
        heartbeats,
        limits,
        malformed,
    )
}
