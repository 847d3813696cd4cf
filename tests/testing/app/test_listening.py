"""The listeners of the fixture: what they receive, drop and resume, and what time does to them."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oncecast import Gap, Refused, UsageError
from oncecast.testing.app import OncecastFixture


def test_a_message_is_there_when_its_publish_returns(oncecast: OncecastFixture) -> None:
    """Each listener of the channel has it, with its event; others have nothing."""
    orders, both, other = oncecast.subscribe("orders"), oncecast.subscribe("orders", ["bids"]), oncecast.subscribe("x")
    ack = oncecast.publish("orders", {"id": 1}, event="placed")
    oncecast.publish("bids", "text")
    assert ([{"id": 1}], [{"id": 1}, "text"], []) == (orders.data, both.data, other.data)
    (message,) = orders.messages
    assert (ack.id, "orders", "placed") == (message.id, message.channel, message.event)
    assert message == oncecast.assert_delivered("orders", {"id": 1}, event="placed")


@pytest.mark.parametrize(
    "start, expected",
    [({}, [3]), ({"after": "earliest"}, [1, 2, 3]), ({"last": 1}, [2, 3]), ({"since": 0}, [1, 2, 3])],
    ids=str,
)
def test_where_a_listener_begins(oncecast: OncecastFixture, start: dict[str, Any], expected: list[int]) -> None:
    """At the next message, or where it asks to."""
    oncecast.publish("orders", 1)
    oncecast.publish("orders", 2)
    listener = oncecast.subscribe("orders", **start)
    oncecast.publish("orders", 3)
    assert expected == listener.data


def test_a_dropped_listener_resumes_at_its_cursor(oncecast: OncecastFixture) -> None:
    """A dropped listener gets the missed messages at `resume`, once and in order."""
    listener = oncecast.subscribe("orders")
    oncecast.publish("orders", 1)
    listener.drop()
    assert not listener.connected
    oncecast.publish("orders", 2)
    assert [1] == listener.data
    listener.resume()
    listener.resume()  # again changes nothing
    oncecast.publish("orders", 3)
    assert ([1, 2, 3], []) == (listener.data, listener.gaps)


def test_the_network_fails_and_returns(oncecast: OncecastFixture) -> None:
    """`drop` and `resume` of the fixture are those of all listeners, and nothing is lost or repeated."""
    listeners = [oncecast.subscribe("orders"), oncecast.subscribe("orders", after="earliest")]
    oncecast.drop()
    for number in range(3):
        oncecast.publish("orders", number)
    with pytest.raises(AssertionError, match=r"listener 1, of orders, is dropped, and has not received 1: call resume"):
        oncecast.assert_delivered("orders", 1)
    oncecast.resume()
    assert [[0, 1, 2]] * 2 == [listener.data for listener in listeners]
    oncecast.assert_delivered("orders", 1)


def test_what_grew_old_is_a_gap(oncecast: OncecastFixture) -> None:
    """After the retention of an hour a message is trimmed, and a later listener gets a gap."""
    listener = oncecast.subscribe("orders")
    listener.drop()
    first = oncecast.publish("orders", 1)
    oncecast.advance(3601)
    oncecast.publish("orders", 2)
    listener.resume()
    (gap,) = listener.gaps
    assert ("expired", first.id) == (gap.reason, gap.missed_to)
    assert [Gap, int] == [Gap if isinstance(item, Gap) else type(item.data) for item in listener.items]
    with pytest.raises(AssertionError, match=r"has not received 1; there are 1: 2; it has a gap \(expired\)"):
        oncecast.assert_delivered("orders", 1)
    assert listener.messages[0].time - oncecast.published("orders")[0].time > 3600


def test_clear_forgets_what_is_shown_alone(oncecast: OncecastFixture) -> None:
    """The next messages stand alone, and what was delivered stays so."""
    listener = oncecast.subscribe("orders")
    oncecast.publish("orders", 1)
    listener.clear()
    oncecast.publish("orders", 2)
    assert [2] == listener.data
    oncecast.assert_delivered("orders", 1)


def test_waiting_for_another_thread(oncecast: OncecastFixture) -> None:
    """`wait` returns as soon as the messages are there, and says what is there where they are not."""
    listener = oncecast.subscribe("orders")
    worker = threading.Thread(target=lambda: [oncecast.publish("orders", number) for number in range(3)])
    worker.start()
    assert [0, 1, 2] == [message.data for message in listener.wait(3, seconds=60)]
    worker.join()
    with pytest.raises(AssertionError, match=r"orders: 4 messages were expected within 0 s, and there are 3: 0, 1, 2$"):
        listener.wait(4, seconds=0)


def test_a_wait_ends_with_the_message(oncecast: OncecastFixture) -> None:
    """Not at its deadline."""
    listener = oncecast.subscribe("orders")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(listener.wait, seconds=40)
        while not listener._changed._waiters and time.monotonic() < began + 30:  # type: ignore[attr-defined]
            time.sleep(0.001)
        oncecast.publish("orders", 1)
        assert [1] == [message.data for message in waiting.result()]
    assert time.monotonic() < began + 35


async def test_waiting_for_a_task(oncecast: OncecastFixture) -> None:
    """`arrival` waits in a coroutine; `wait` would block the loop, and says so."""
    listener = oncecast.subscribe("orders")
    task = asyncio.create_task(asyncio.to_thread(oncecast.publish, "orders", 1))
    assert [1] == [message.data for message in await listener.arrival(seconds=60)]
    await task
    listener.drop()
    with pytest.raises(AssertionError, match=r"2 messages were expected .* it is dropped, and nothing arrives before"):
        await listener.arrival(2, seconds=0)
    with pytest.raises(UsageError, match=r"await listener.arrival"):
        listener.wait()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("orders", 2), r"orders: 2 was expected to be published, and there are 2: 1, 1; other .* messages: bids$"),
        (("orders", 1), r"orders: 1 was expected to be published 1 times, not 2 times, and there are 2: 1, 1"),
        (("none", 1), r"none: 1 was expected to be published, and there is none; other .* messages: bids, orders$"),
    ],
    ids=["other data", "twice", "no message"],
)
def test_what_was_not_published(oncecast: OncecastFixture, arguments: tuple[str, int], expected: str) -> None:
    """The assertion says what there is instead."""
    for channel in ("orders", "orders", "bids"):
        oncecast.publish(channel, 1)
    with pytest.raises(AssertionError, match=expected):
        oncecast.assert_delivered(*arguments)
    oncecast.assert_delivered("orders", 1, times=None)
    oncecast.assert_delivered("orders", 1, times=2)
    assert 3 == len(oncecast.published())


def test_an_event_counts_where_it_is_named(oncecast: OncecastFixture) -> None:
    """Data under another event's name is another message."""
    oncecast.publish("orders", 1, event="placed")
    with pytest.raises(AssertionError, match=r"1 \(event paid\) was expected .* there are 1: 1 \(event placed\)"):
        oncecast.assert_delivered("orders", 1, event="paid")


def test_a_key_is_published_once(oncecast: OncecastFixture) -> None:
    """A repeated key gives one message, as with a server."""
    assert oncecast.publish("orders", 1, key="k") == oncecast.publish("orders", 1, key="k")
    oncecast.assert_delivered("orders", 1)


def test_a_wrong_call(oncecast: OncecastFixture) -> None:
    """A wrong call is refused in the words of the clients, and time does not go back."""
    with pytest.raises(UsageError, match="give one of after, last and since"):
        oncecast.subscribe("orders", after="latest", last=1)
    with pytest.raises(Refused, match="is not a channel name"):
        oncecast.publish("no channel", 1)
    with pytest.raises(Refused, match="JSON has no nan"):
        oncecast.publish("orders", float("nan"))
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Time goes on only"):
            oncecast.advance(seconds)
