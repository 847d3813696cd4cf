"""Clauses of a transport's contract: gaps, bursts, cuts at every byte, pieces of one byte, and readers that stall.

Each check is a coroutine of one `TransportBench` and names its clause where it fails. To add one, add it to `CHECKS`.
"""

from __future__ import annotations

import asyncio
import random

from ..message import Draft, Kind
from ..server.settings import ChannelRule, RetentionSettings, Settings
from .pipe import Faults, FaultyPipe, Plan
from .subscriber import Cut, GapSeen, Subscriber
from .transport_bench import Heard, TransportBench, TransportFailed, expect
from .transport_reading import TransportCheck

__all__ = ["CHECKS"]

LOG = 30
KEPT = 10  # messages that a short retention keeps
GAP_CLOSE, SLOW_CLOSE = 4410, 4409  # errors.py: `gap`, `slow`
BIG = 16 << 10  # bytes of a message; a few of them fill a socket
MOST_BIG = 4000  # 64 MB: more than a kernel's buffer of one socket
STALLED = 120  # messages after a full socket: a broker that keeps KEPT may trim only once a channel is over by 75
SMALL_BUFFER = 4096  # SO_RCVBUF of a subscriber that stalls


async def gap_of_what_expired(bench: TransportBench) -> None:
    """A cursor older than the retention gets one gap, of exactly the missed messages, and then all that are kept."""
    await bench.serve(Settings(port=0, retention=RetentionSettings(messages=KEPT)))
    bench.publish_numbers(LOG)
    last = LOG - KEPT
    for position in (0, 1, 7, last - 1):
        gap = GapSeen("c", "expired", bench.at(position + 1), bench.at(last), bench.at(last))
        await gap_then(bench, bench.at(position), gap, last + 1)
    subscriber = bench.subscriber(start=f"after={bench.at(last)}")
    heard = await bench.listen(subscriber, KEPT)
    expect([], heard.gaps, "nothing was missed, so there is no gap")
    expect(bench.shown(subscriber, last + 1), heard.data, "all that is kept comes")


async def gap_of_another_epoch(bench: TransportBench) -> None:
    """A cursor of another epoch gets a gap, then all messages of the log."""
    await bench.serve()
    bench.publish_numbers(LOG)
    await gap_then(bench, "earlier-7", GapSeen("c", "epoch", "earlier-8", None, bench.at(0)), 1)


async def gap_of_the_unknown(bench: TransportBench) -> None:
    """A cursor ahead of the log gets a gap, and the stream continues from the head."""
    await bench.serve()
    bench.publish_numbers(LOG)
    await gap_then(
        bench, bench.at(99), GapSeen("c", "unknown", bench.at(LOG + 1), bench.at(99), bench.at(LOG)), LOG + 1
    )


async def gaps_of_several_channels(bench: TransportBench) -> None:
    """Each channel has its own gap, and a connection that is cut at any byte of them loses none."""
    await bench.serve(Settings(port=0, retention=RetentionSettings(messages=1)))
    if not bench.kind.resumes:
        return
    for n in range(6):
        bench.publish(Draft("ab"[n % 2], str(n).encode()))
    wanted = {("a", bench.at(3)), ("b", bench.at(4))}
    async with bench.pipe() as pipe:
        for start, step in ((bench.at(0), 5), ("earlier-7", 11)):  # an event is longer than a step
            at, cut = 0, True
            while cut:
                subscriber = bench.subscriber("a", "b")
                subscriber.seek(start)
                heard, cut = await cut_at(bench, pipe, subscriber, at, 2)
                what = f"after {start}, cut at byte {at} of the answer"
                expect({"a", "b"}, {gap.channel for gap in heard.gaps}, f"every channel's gap comes: {what}")
                if start != "earlier-7":
                    expect(wanted, {(gap.channel, gap.missed_to) for gap in heard.gaps}, f"with its end: {what}")
                expect([4, 5], sorted(heard.data, key=str), f"then comes what is kept, once: {what}")
                at += step


async def gaps_since_a_time(bench: TransportBench) -> None:
    """After `since`, each channel that was trimmed has a gap of its last trimmed message alone, on every transport."""
    await bench.serve(Settings(port=0, retention=RetentionSettings(messages=1)))
    if not bench.kind.resumes:
        return
    for n in range(7):
        bench.publish(Draft("aababbc"[n], str(n).encode()))
    subscriber = bench.subscriber("a", "b", "c", start=f"since={bench.wall}")
    heard = await bench.listen(subscriber, 3)
    ranges = sorted((gap.channel, gap.reason, gap.missed_from, gap.missed_to) for gap in heard.gaps)
    wanted = [("a", "expired", bench.at(2), bench.at(2)), ("b", "expired", bench.at(5), bench.at(5))]
    expect(wanted, ranges, "the range is the last one missed, of each channel")
    expect([3, 5, 6], sorted(heard.data, key=str), "then comes what is kept, once")


async def attach_during_a_burst(bench: TransportBench) -> None:
    """A subscriber that attaches or resumes during a burst misses no message and gets none twice."""
    rng = random.Random(7)  # noqa: S311 - a schedule has to be repeatable, not secret
    total = 3000
    await bench.serve()

    async def publish() -> None:
        while len(bench.published) < total:
            bench.publish_numbers(min(rng.randrange(1, 20), total - len(bench.published)))
            await asyncio.sleep(0)

    async def follow(cut_after: int) -> None:
        first = len(bench.published)
        subscriber = bench.subscriber(start=f"after={bench.at(first)}")
        heard = Heard()
        while len(heard.messages) < total - first:
            part = await bench.listen(subscriber, 1)
            heard.messages += part.messages
            expect([], part.gaps, "nothing has expired, so there is no gap")
            if subscriber.resumes and len(heard.messages) >= cut_after:
                subscriber.cut()
                cut_after *= 2
        expect(bench.shown(subscriber, first + 1), heard.data, f"all that was published after message {first}, once")

    followers: list[asyncio.Task[None]] = []
    publisher = asyncio.create_task(publish())
    try:
        while len(bench.published) < total // 2:
            if len(followers) < 12:
                followers.append(asyncio.create_task(follow(rng.randrange(1, 200))))
            await asyncio.sleep(0)
        await asyncio.gather(publisher, *followers)
    finally:
        for task in (publisher, *followers):
            task.cancel()


async def cut_at_every_byte(bench: TransportBench) -> None:
    """A connection that is cut at any byte of the answer resumes with each message once and in order."""
    await bench.serve()
    if not bench.kind.resumes:
        return
    bench.publish(
        Draft("c", b"1"),
        Draft("c", "é\nü".encode(), Kind.TEXT, event="tick"),
        Draft("c", b"\0\xff", Kind.BINARY),
        Draft("c", b'{"n":4}'),
    )
    at, cut = 0, True
    async with bench.pipe() as pipe:
        while cut:
            subscriber = bench.subscriber()
            heard, cut = await cut_at(bench, pipe, subscriber, at, len(bench.published))
            expect(bench.shown(subscriber, 1), heard.data, f"cut at byte {at} of the answer")
            expect([], heard.gaps, "a cut is no gap")
            at += 1
    expect(True, at > len(b"HTTP/1.1 200 OK"), "the answer was cut at more than its first bytes")


async def byte_by_byte(bench: TransportBench) -> None:
    """Requests and answers that are sent byte by byte have the same result."""
    await bench.serve()
    bench.publish_numbers(LOG)
    plan = Plan(Faults(piece_bytes=1), Faults(piece_bytes=1))
    async with bench.pipe() as pipe:
        pipe.plan = lambda number, rng: plan
        subscriber = bench.subscriber(port=pipe.port)
        heard = await bench.listen(subscriber, LOG)
        expect(bench.shown(subscriber, 1), heard.data, "byte by byte")
        subscriber.cut()


async def stalled_reader(bench: TransportBench) -> None:
    """A reader that stalls delays no other one, and later gets each message once and in order."""
    await bench.serve(Settings(port=0))
    if not bench.kind.streams:
        return
    slow = await stall(bench, "c")
    heard = await bench.listen(slow, len(bench.published))
    expect(bench.shown(slow, 1), heard.data, "after a stall come all, once, in order")
    expect([], heard.gaps, "nothing has expired, so there is no gap")


async def stalled_past_the_retention(bench: TransportBench) -> None:
    """A reader that stalls for longer than the retention gets a gap of exactly the missed messages."""
    await bench.serve(Settings(port=0, retention=RetentionSettings(messages=KEPT)))
    if bench.kind.streams:
        await expect_skip(bench, await stall(bench, "c"))


async def lag_policy_latest(bench: TransportBench) -> None:
    """With `lag = "latest"` a reader that stalls gets a gap and then the newest message."""
    await bench.serve(Settings(port=0, channels={"tick*": ChannelRule(lag="latest")}))
    if bench.kind.streams:
        slow = await stall(bench, "ticks")
        await expect_skip(bench, slow)


async def lag_policy_disconnect(bench: TransportBench) -> None:
    """With `lag = "disconnect"` a reader that stalls is disconnected, and resumes with each message once, in order."""
    await bench.serve(Settings(port=0, channels={"strict": ChannelRule(lag="disconnect")}))
    if not bench.kind.streams:
        return
    slow = await stall(bench, "strict")
    heard = Heard()
    try:
        while len(heard.messages) < len(bench.published):
            await bench.hear(slow, heard)
    except Cut as cut:
        if bench.kind.writes:  # a WebSocket
            expect(SLOW_CLOSE, cut.code, "the close says why")
    else:
        raise TransportFailed("a reader that lags is disconnected\n  actual   it was served to the end")
    if slow.resumes:
        rest = await bench.listen(slow, len(bench.published) - len(heard.messages))
        heard.messages += rest.messages
    expect(bench.shown(slow, 1, len(heard.messages)), heard.data, "all, once, in order")


# -- helpers


async def gap_then(bench: TransportBench, cursor: str, gap: GapSeen, first: int) -> None:
    """Expect the gap after this cursor, then the messages from number `first`; or a close that reports the gap."""
    subscriber = bench.subscriber(start=f"after={cursor}")
    if not subscriber.resumes:
        await expect_gap_close(bench, subscriber, gap.reason)
        return
    count = len(bench.published) + 1 - first
    heard = await bench.listen(subscriber, count, gaps=1)
    expect([gap], heard.gaps, f"after {cursor} there is one gap, exactly of what was missed")
    expect(bench.shown(subscriber, first)[:count], heard.data, "then the stream goes on")
    if subscriber.streams:
        expect({"c": heard.messages[-1].id if heard.messages else gap.cursor}, subscriber.cursors, "with its cursor")


async def expect_gap_close(bench: TransportBench, subscriber: Subscriber, reason: str) -> Heard:
    """Expect that the gap closes this subscriber, whose transport has no message for a gap."""
    heard = Heard()
    try:
        if not subscriber.connected:
            await subscriber.connect()
        while True:
            await bench.hear(subscriber, heard)
    except Cut as cut:
        expect(GAP_CLOSE, cut.code, "a gap that can't be said closes")
        expect(True, reason in cut.reason, f"the close names the reason, {reason}: {cut.reason}")
    return heard


async def cut_at(
    bench: TransportBench, pipe: FaultyPipe, subscriber: Subscriber, at: int, count: int
) -> tuple[Heard, bool]:
    """Listen for `count` messages, on a connection cut at byte `at` of the answer, then on one that is not cut."""
    pipe.plan = lambda number, rng: Plan(down=Faults(cut_after=at))
    passed = pipe.down_bytes
    subscriber.port = pipe.port
    heard = Heard()
    cut = False
    try:
        await subscriber.connect()
        while len(heard.messages) < count or pipe.down_bytes - passed == at:  # the cut may be after the last byte
            await bench.hear(subscriber, heard)
    except Cut:
        cut = True
    subscriber.port = bench.served.port
    rest = await bench.listen(subscriber, count - len(heard.messages))
    subscriber.cut()
    return Heard(heard.messages + rest.messages, heard.gaps + rest.gaps), cut


async def stall(bench: TransportBench, channel: str) -> Subscriber:
    """Stall one subscriber while another one reads every message in time."""
    hub = bench.served.node.hub
    slow = bench.subscriber(channel, start="after=latest", receive_buffer=SMALL_BUFFER)
    quick = bench.subscriber(channel, start="after=latest")
    await bench.attach(slow)
    await bench.attach(quick)
    blocked = hub.counters.blocked
    after = 0
    while after < STALLED:  # publish on after its socket is full
        number = len(bench.published)
        if number > MOST_BIG:
            raise TransportFailed("a reader that does not read blocks its subscription\n  actual   it never did")
        after += hub.counters.blocked > blocked
        bench.publish(Draft(channel, f"{number + 1:0{BIG}}".encode(), Kind.TEXT))
        heard = await bench.listen(quick, 1)
        expect(bench.shown(quick, number + 1), heard.data, "a reader that stalls delays nobody")
    quick.cut()
    return slow


async def expect_skip(bench: TransportBench, slow: Subscriber) -> None:
    """Expect the messages up to a gap of reason `slow`, and those after it to the newest: together all of them."""
    if not slow.resumes:
        heard = await expect_gap_close(bench, slow, "slow")
        expect(bench.shown(slow, 1, len(heard.messages)), heard.data, "what came before the gap is whole")
        return
    heard = Heard()
    newest = bench.at(len(bench.published))
    while slow.cursors[slow.channels[0]] != newest:
        await bench.hear(slow, heard)
    expect(1, len(heard.gaps), "there is one gap")
    (gap,) = heard.gaps
    expect("slow", gap.reason, "of reason slow")
    first, last = (int((text or "").rpartition("-")[2]) for text in (gap.missed_from, gap.missed_to))
    expect(gap.missed_to, gap.cursor, "the stream goes on right after what was missed")
    wanted = bench.shown(slow, 1, first - 1) + bench.shown(slow, last + 1)
    expect(wanted, heard.data, f"all but what the gap names, {first} to {last}")
    expect(True, last < len(bench.published), "the newest is not missed")


CHECKS: dict[str, TransportCheck] = {
    check.__name__: check
    for check in (
        gap_of_what_expired,
        gap_of_another_epoch,
        gap_of_the_unknown,
        gaps_of_several_channels,
        gaps_since_a_time,
        attach_during_a_burst,
        cut_at_every_byte,
        byte_by_byte,
        stalled_reader,
        stalled_past_the_retention,
        lag_policy_latest,
        lag_policy_disconnect,
    )
}
