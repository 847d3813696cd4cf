"""The memory broker: the contract, and what is its own: how it forgets keys, and what it makes of a clock set back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.brokers import memory
from oncecast.brokers.base import KEY_SECONDS
from oncecast.brokers.memory import MemoryBroker, new_epoch
from oncecast.errors import Refusal, UsageError
from oncecast.message import EARLIEST, Cursor, Draft
from oncecast.testing.broker import CHECKS, BrokerBench, Lab, check_broker
from oncecast.testing.clock import EPOCH_SECONDS, FakeClock


def bench(wall: Callable[[], float]) -> BrokerBench:
    """An open memory broker that keeps what it delivers."""
    lab = Lab(lambda: MemoryBroker("e", wall))
    made = BrokerBench(lab.make(), lab)
    made.start()
    return made


@pytest.mark.parametrize("name", CHECKS)
def test_it_keeps_the_contract(name: str) -> None:
    """It passes every check that a broker must pass."""
    check_broker(lambda: Lab(lambda: MemoryBroker("k3f9x2", FakeClock().wall)), name)


def test_numbers_go_up_by_one() -> None:
    """The numbers of a shard have no holes here, so a batch and a repeat leave none either."""
    broker = bench(FakeClock().wall)
    broker.publish(Draft("a", b"1", key="k"), Draft("a", b"1", key="k"))
    broker.publish(Draft("b", b"2"))
    assert [1, 2] == [message.seq for message in broker.messages]


def test_a_clock_set_back_sets_no_time_back() -> None:
    """Times stand still until the wall clock has caught up, so that `since` misses nothing."""
    clock = FakeClock()
    broker = bench(clock.wall)
    for step in (0, -3600, 3599, 2):
        clock.jump(step)
        broker.publish(Draft("a", b"1"))
    assert [0.0, 0.0, 0.0, 1.0] == [message.time - EPOCH_SECONDS for message in broker.messages]


def test_a_time_is_in_whole_milliseconds() -> None:
    """The log knows a time no finer than the wire shows it, or `since` a shown time could skip its own message."""
    broker = bench(lambda: 1764000000.123456)
    broker.publish(Draft("a", b"1"))
    assert [1764000000.123] == [message.time for message in broker.messages]


def test_a_key_is_forgotten_after_its_time() -> None:
    """A key is known for up to a day. After that its message is a new one."""
    clock = FakeClock()
    broker = bench(clock.wall)
    first = broker.publish(Draft("a", b"1", key="k"))
    clock.advance(KEY_SECONDS - 1)
    assert first == broker.publish(Draft("a", b"2", key="k"))
    clock.advance(1)
    assert first != broker.publish(Draft("a", b"3", key="k"))
    assert [b"1", b"3"] == [message.data for message in broker.messages]


def test_the_oldest_key_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the keys that came first are forgotten, however young; the newer are still known."""
    monkeypatch.setattr(memory, "KEYS", 3)
    broker = bench(FakeClock().wall)
    keys = ["k0", "k1", "k2", "k3"]
    first = {key: broker.publish(Draft("a", b"1", key=key)) for key in keys}
    assert first["k3"] == broker.publish(Draft("a", b"2", key="k3"))
    assert first["k0"] != broker.publish(Draft("a", b"2", key="k0"))


def test_every_key_may_have_expired_at_once() -> None:
    """All expired keys are dropped, and publishing goes on."""
    clock = FakeClock()
    broker = bench(clock.wall)
    broker.publish(Draft("a", b"1", key="k"), Draft("a", b"2", key="l"))
    clock.advance(2 * KEY_SECONDS)
    broker.publish(Draft("a", b"3"))
    assert [1, 2, 3] == [message.seq for message in broker.messages]


def test_it_serves_one_node() -> None:
    """A second start and a read raise. A publish before the start is refused."""
    lab = Lab(lambda: MemoryBroker("e", FakeClock().wall))
    made = BrokerBench(lab.make(), lab)
    assert ["unavailable"] == [
        outcome.code for outcome in made.publish(Draft("a", b"1")) if isinstance(outcome, Refusal)
    ]
    made.start()
    with pytest.raises(UsageError, match="started already"):
        made.start()
    with pytest.raises(UsageError, match="no history"):
        made.broker.read(("a",), EARLIEST, 1, 1, lambda answer: None)


def test_a_delivery_that_fails_is_not_acknowledged() -> None:
    """The publish is refused, the node fails, and later publishes are refused."""

    class Deaf(BrokerBench):
        def receive(self, messages: object, /) -> None:
            raise ValueError("defect")

    lab = Lab(lambda: MemoryBroker("e", FakeClock().wall))
    made = Deaf(lab.make(), lab)
    made.start()
    refused = [outcome for _ in range(2) for outcome in made.publish(Draft("a", b"1"))]
    assert ["internal"] * 2 == [outcome.code for outcome in refused if isinstance(outcome, Refusal)]
    assert ["broker: a delivery failed: ValueError('defect')"] == made.failures


@given(st.binary(min_size=8, max_size=16))
def test_an_epoch_is_short_and_makes_cursors(random: bytes) -> None:
    """An epoch has ten characters that a cursor can hold, whatever its random bytes."""
    epoch = new_epoch(random)
    assert re.fullmatch("[0-9a-z]{10}", epoch)
    assert Cursor(epoch, 1) == Cursor.parse(f"{epoch}-1")


def test_an_epoch_follows_its_random_bytes() -> None:
    """Equal bytes give equal epochs, and other bytes another epoch."""
    assert new_epoch(b"12345678") == new_epoch(b"12345678")
    assert 3 == len({new_epoch(bytes([n]) * 8) for n in (0, 1, 255)})
