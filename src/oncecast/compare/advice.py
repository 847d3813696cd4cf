"""What follows from the figures: which transport to take, and which polling interval would cost the same as a socket.

Invariant: each figure in a sentence is one of the report; nothing is recommended that did not work in this run. The
rules are tried in the order of `verdict_of`. To add one, put it there.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import figures
from .plan import ComparePlan
from .report import ORDER, TITLES, ComparedLane, Equivalent, Verdict

__all__ = ["equivalent_of", "equivalent_sentence", "verdict_of"]

LEAST_CPU = 0.005  # seconds on each side, below which a ratio of CPU times says nothing
WORKS = 0.9  # of the messages that a transport must have brought to be recommended
NEAR = 1.25  # times another figure, and
NEAR_SECONDS = 0.005  # seconds above another delay, within which two delays count as equal
FAST = 10.0  # messages a second, from which on the bytes of each one weigh more than the simpler protocol
LESS = 0.8  # of SSE's bytes, from which on a socket's are fewer


def equivalent_of(lanes: Sequence[ComparedLane], elapsed: float) -> Equivalent:
    """Return the intervals of short polls that would cost as many bytes, or as much CPU time, as the WebSocket does.

    A listener's polls cost a head each, at any interval, and the messages in their answers: `page_bytes`, which do not
    depend on it. So the interval is that at which the heads cost what the socket's bytes leave beside the messages.
    """
    polls, socket = (next(lane for lane in lanes if lane.transport == name) for name in ("short-poll", "websocket"))
    if not polls.polls or not socket.received or elapsed <= 0:
        return Equivalent()
    listening = elapsed * socket.listeners  # seconds of all listeners together
    head = (polls.bytes_up + polls.bytes_down - polls.page_bytes) / polls.polls
    messages = polls.page_bytes / (elapsed * polls.listeners)
    left = (socket.bytes_up + socket.bytes_down) / listening - messages
    by_cpu = None
    if min(polls.cpu_seconds or 0.0, socket.cpu_seconds or 0.0) > LEAST_CPU:
        assert polls.cpu_seconds is not None
        assert socket.cpu_seconds is not None
        by_cpu = (polls.cpu_seconds / polls.polls) / (socket.cpu_seconds / listening)
    return Equivalent(head / left if left > 0 else None, by_cpu)


def verdict_of(lanes: Sequence[ComparedLane], plan: ComparePlan) -> Verdict:
    """Return the recommendation, with its reason in two sentences."""
    working = {lane.transport: lane for lane in lanes if _works(lane)}
    if not working:
        return Verdict(None, [f"No transport brought its messages here: {_reasons(lanes, ORDER)}."])
    sse, socket = working.get("sse"), working.get("websocket")
    if plan.use.two_way and plan.rate is None and socket is not None:
        first = (
            f"Take WebSocket: those who listen to a {plan.schedule} also write, which a socket does on the connection "
            f"that it has, and a message came {_after(socket)}."
        )
        return Verdict("websocket", [first, _against(working, "websocket", plan)])
    if sse is not None and socket is not None and plan.mean_rate >= FAST and _bytes(socket) < LESS * _bytes(sse):
        first = (
            f"Take WebSocket: a message costs it {figures.size(_bytes(socket))}, and SSE {figures.size(_bytes(sse))}, "
            f"which counts at {plan.mean_rate:g} messages a second; it came {_after(socket)}."
        )
        return Verdict("websocket", [first, _against(working, "websocket", plan)])
    if sse is not None and (socket is None or _as_fast(sse, socket)):
        beside = (
            f"and WebSocket did not work here ({_reasons(lanes, ['websocket'])})"
            if socket is None
            else f"as fast as over WebSocket ({_p50(socket)})"
        )
        first = (
            f"Take Server-Sent Events: here the listeners only listen, and over plain HTTP, which a browser resumes by "
            f"itself, a message came {_after(sse)}, {beside}."
        )
        return Verdict("sse", [first, _against(working, "sse", plan)])
    if socket is not None:
        beside = _reasons(lanes, ["sse"]) if sse is None else f"{_p50(sse)} at p50"
        first = f"Take WebSocket: a message came {_after(socket)}, and over SSE it did not do as well ({beside})."
        return Verdict("websocket", [first, _against(working, "websocket", plan)])
    name = "long-poll" if "long-poll" in working else "short-poll"
    lost = [each for each in ORDER if each not in working]
    first = (
        f"Take {'long' if name == 'long-poll' else 'short'} polling, for what else there is does not work here "
        f"({_reasons(lanes, lost)}): a message came {_after(working[name])}."
    )
    return Verdict(name, [first, _against(working, name, plan)])


def equivalent_sentence(equivalent: Equivalent, socket: ComparedLane) -> str:
    """Return which polling interval costs the same as a socket, as a sentence."""
    if socket.state != "measured":
        return "What interval of polls would cost the same as a WebSocket is not known, as that did not work here."
    parts = []
    if equivalent.bytes is not None:
        late = figures.seconds(equivalent.bytes / 2)
        interval = figures.seconds(equivalent.bytes)
        parts.append(
            f"as many bytes as the WebSocket at an interval of {interval}, with messages {late} late on average"
        )
    if equivalent.cpu is not None:
        at = "at" if parts else "as the WebSocket at an interval of"
        parts.append(f"as much of the server's CPU time {at} {figures.seconds(equivalent.cpu)}")
    if not parts:
        return "No interval of short polls costs as few bytes as the WebSocket did."
    return f"Short polls would cost {', and '.join(parts)}."


def _works(lane: ComparedLane) -> bool:
    return lane.state == "measured" and lane.delay is not None and lane.received >= WORKS * lane.expected


def _as_fast(one: ComparedLane, other: ComparedLane) -> bool:
    assert one.delay is not None
    assert other.delay is not None
    return one.delay.p50 <= NEAR * other.delay.p50 + NEAR_SECONDS


def _bytes(lane: ComparedLane) -> float:
    return lane.bytes_a_message


def _p50(lane: ComparedLane) -> str:
    return figures.seconds(lane.delay.p50 if lane.delay else None)


def _after(lane: ComparedLane) -> str:
    assert lane.delay is not None
    return f"after {_p50(lane)} (p99 {figures.seconds(lane.delay.p99)})"


def _against(working: dict[str, ComparedLane], chosen: str, plan: ComparePlan) -> str:
    """Return what the choice spares, in a sentence on short polling; on the choice where that is all there is."""
    polls = working.get("short-poll")
    if polls is None or chosen == "short-poll":
        lane = working[chosen]
        return f"It cost {figures.size(_bytes(lane))} a message."
    empty = f"{polls.empty_answers / polls.polls:.0%}" if polls.empty_answers else "none"
    return (
        f"Short polling every {plan.poll_interval:g} s took {_p50(polls)} and {figures.size(_bytes(polls))} a message, "
        f"and of its {figures.count(polls.polls)} answers {empty} were empty."
    )


def _reasons(lanes: Sequence[ComparedLane], names: Sequence[str]) -> str:
    """Return why transports did not work, each reason once."""
    found: dict[str, list[str]] = {}
    for lane in lanes:
        if lane.transport in names:
            reason = lane.reason.rstrip(".") or f"{lane.received} of {lane.expected} messages arrived"
            found.setdefault(reason, []).append(TITLES[lane.transport])
    return "; ".join(f"{', '.join(titles)}: {reason}" for reason, titles in found.items())
