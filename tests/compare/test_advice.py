"""The recommendation: the first rule that fits, with figures of the report; and what a socket costs in polls."""

from __future__ import annotations

import msgspec
import pytest

from oncecast.compare.advice import equivalent_of, equivalent_sentence, verdict_of
from oncecast.compare.plan import ComparePlan
from oncecast.compare.report import ORDER, ComparedLane, Equivalent
from tests.compare.conftest import LANES, blocked, lane_of

CHAT = ComparePlan(schedule="chat")
NEWS = ComparePlan(schedule="notifications")
TICKER = ComparePlan(schedule="ticker")


def _lanes(**changed: ComparedLane) -> list[ComparedLane]:
    given = {name.replace("_", "-"): lane for name, lane in changed.items()}
    return [given.get(name, LANES[name]) for name in ORDER]


@pytest.mark.parametrize(
    "plan, changed, transport, says",
    [
        (CHAT, {}, "websocket", "those who listen to a chat also write"),
        (CHAT, {"websocket": blocked("websocket", "a proxy cut it")}, "sse", "a proxy cut it"),
        (NEWS, {}, "sse", "as fast as over WebSocket (1.00 ms)"),
        (TICKER, {}, "sse", "as fast as over WebSocket"),
        (TICKER, {"sse": lane_of("sse", 0.001, bytes_down=9000)}, "websocket", "and SSE 500 B, which counts at 20"),
        (NEWS, {"sse": lane_of("sse", 0.2)}, "websocket", "over SSE it did not do as well (200 ms at p50)"),
        (NEWS, {"sse": blocked("sse", "held back")}, "websocket", "held back"),
        (
            NEWS,
            {"sse": blocked("sse", "no"), "websocket": blocked("websocket", "no")},
            "long-poll",
            "does not work here (SSE, WebSocket: no): a message came after 2.00 ms (p99 4.00 ms)",
        ),
        (
            NEWS,
            {name.replace("-", "_"): blocked(name, "no") for name in ORDER[1:]},
            "short-poll",
            "Take short polling",
        ),
        (
            NEWS,
            {"sse": msgspec.structs.replace(LANES["sse"], received=10)},
            "websocket",
            "10 of 20 messages arrived",
        ),
    ],
)
def test_the_recommendation(plan: ComparePlan, changed: dict[str, ComparedLane], transport: str, says: str) -> None:
    """It has two sentences, names a transport that worked, and says why with figures."""
    verdict = verdict_of(_lanes(**changed), plan)
    assert (transport, 2) == (verdict.transport, len(verdict.sentences))
    assert says in " ".join(verdict.sentences)
    assert all(sentence.endswith(".") for sentence in verdict.sentences)


def test_nothing_works() -> None:
    """Where no transport gets through none is recommended, and each reason is said once."""
    verdict = verdict_of([blocked(name, "the proxy answers 403") for name in ORDER], NEWS)
    assert None is verdict.transport
    expected = "short poll, long poll, SSE, WebSocket: the proxy answers 403"
    assert [f"No transport brought its messages here: {expected}."] == verdict.sentences


def test_what_interval_costs_as_much_as_a_socket() -> None:
    """At that interval the polls' heads cost what the socket's bytes leave beside the messages."""
    polls = lane_of("short-poll", 0.5, polls=40, bytes_up=1000, bytes_down=9000, page_bytes=4000, cpu_seconds=0.08)
    socket = lane_of("websocket", 0.001, bytes_up=0, bytes_down=5000, cpu_seconds=0.02)
    found = equivalent_of(_lanes(short_poll=polls, websocket=socket), 10.0)
    # A head costs (10,000 - 4,000) / 40 = 150 bytes; beside the messages a listener's socket costs
    # (5,000 - 4,000) / 2 / 10 = 50 bytes a second. A poll costs 2 ms of CPU time, a listener's socket 1 ms a second.
    assert pytest.approx((3.0, 2.0)) == msgspec.structs.astuple(found)
    assert (
        "Short polls would cost as many bytes as the WebSocket at an interval of 3.00 s, with messages 1.50 s late on "
        "average, and as much of the server's CPU time at 2.00 s." == equivalent_sentence(found, socket)
    )
    only_cpu = "Short polls would cost as much of the server's CPU time as the WebSocket at an interval of 2.00 s."
    assert only_cpu == equivalent_sentence(Equivalent(cpu=2.0), socket)


def test_no_interval_is_as_cheap_as_the_socket() -> None:
    """Where the messages alone cost more in answers to polls, or nothing is known, no number is made up."""
    heavy = lane_of("short-poll", 0.5, polls=40, bytes_down=12000, page_bytes=8000)
    assert Equivalent() == equivalent_of(_lanes(short_poll=heavy), 10.0)
    assert "No interval of short polls" in equivalent_sentence(Equivalent(), LANES["websocket"])
    lost = blocked("websocket", "no")
    assert Equivalent() == equivalent_of(_lanes(websocket=lost), 10.0)
    assert "is not known" in equivalent_sentence(Equivalent(), lost)
    assert Equivalent() == equivalent_of(_lanes(short_poll=blocked("short-poll", "no")), 0.0)
