"""Rates and counts in fixed memory: never looser than a table of all keys, and hardly stricter."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.policy.bucket import Bucket
from oncecast.policy.sketch import COUNT_SLOTS, PLACES, RATE_SLOTS, REGION_WORDS, ROWS, Counts, Hasher, Rates

SECRET = b"0123456789abcdef"


def rates() -> Rates:
    """Return buckets that are all full."""
    return Rates(memoryview(bytearray(8 * ROWS * RATE_SLOTS)).cast("d"))


def regions(number: int) -> list[memoryview]:
    """Return the regions of so many processes."""
    return [memoryview(bytearray(4 * REGION_WORDS)).cast("I") for _ in range(number)]


def test_a_place_is_of_one_key_and_of_one_secret() -> None:
    """Two processes with one secret agree; without it nobody can tell the places."""
    assert Hasher(SECRET).place("user:ann") == Hasher(SECRET).place("user:ann")
    assert Hasher(SECRET).place("user:ann") != Hasher(SECRET).place("user:bob")
    assert Hasher(SECRET).place("user:ann") != Hasher(SECRET[::-1]).place("user:ann")
    assert 4 == len(Hasher(SECRET).place("user:\ud800"))


def test_places_are_remembered_up_to_a_bound() -> None:
    """New keys do not grow the memory past the bound."""
    hasher = Hasher(SECRET)
    for number in range(PLACES + 10):
        hasher.place(str(number))
    assert len(hasher._known) <= PLACES


@given(
    rate=st.sampled_from([0.5, 1.0, 3.0, 100.0]),
    asked=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 9)), max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_alone_a_key_has_a_bucket_of_its_own(rate: float, asked: list[tuple[float, int]]) -> None:
    """A key without others beside it is allowed and refused as by a `Bucket` whose burst is two seconds' worth."""
    shared, place, now = rates(), Hasher(SECRET).place("a"), 1000.0
    bucket = Bucket.steady(rate, now)
    for pause, count in asked:
        now += pause
        seconds = shared.spend(place, count / rate, 2.0, now)
        expected = bucket.take(now, count)
        if abs(bucket._credit) > 1e-6 or expected:  # at a credit of exactly nothing the two may round apart
            assert (seconds > 0) == (expected > 0) or abs(bucket._credit) < 1e-6


def test_the_wait_that_is_named_is_enough() -> None:
    """After the returned seconds the next `spend` is allowed, and after half of them it is not."""
    shared, place = rates(), Hasher(SECRET).place("a")
    assert [0.0, 0.0] == [shared.spend(place, 1.0, 2.0, 50.0) for _ in range(2)]
    wait = shared.spend(place, 1.0, 2.0, 50.0)
    assert 1.0 == wait
    assert 0.0 < shared.spend(place, 1.0, 2.0, 50.0 - wait / 2)
    assert 0.0 == shared.spend(place, 1.0, 2.0, 50.0 + wait)


def test_a_refusal_costs_nothing() -> None:
    """A refused `spend` does not delay the next one that is allowed."""
    shared, place = rates(), Hasher(SECRET).place("a")
    shared.spend(place, 5.0, 2.0, 0.0)
    assert {4.0} == {shared.spend(place, 1.0, 2.0, 0.0) for _ in range(100)}


def test_new_keys_bring_no_fresh_bucket_and_hardly_touch_others() -> None:
    """An attacker with 50,000 networks that all spend what they may: its first key stays refused, others go on."""
    shared, hasher = rates(), Hasher(SECRET)
    first = hasher.place("address:2001:db8::/64")
    shared.spend(first, 100.0, 2.0, 0.0)
    for number in range(50_000):
        shared.spend(hasher.place(f"address:{number}"), 2.0, 2.0, 0.0)
    assert shared.spend(first, 1.0, 2.0, 0.0) > 90
    refused = sum(shared.spend(hasher.place(f"user:{number}"), 1.0, 2.0, 0.0) > 0 for number in range(1000))
    assert refused < 150  # of an innocent thousand, while the attack lasts; and 2 s later none
    assert 0 == sum(shared.spend(hasher.place(f"user:{n}"), 1.0, 2.0, 3.0) > 0 for n in range(2000, 3000))


def test_counts_are_those_of_all_processes() -> None:
    """Each counts in its own region, and all see the sum."""
    memory = regions(3)
    one, two, _ = (Counts(own, memory) for own in memory)
    place = Hasher(SECRET).place("address:192.0.2.1")
    one.add(place, 2)
    two.add(place, 1)
    one.set_all(7)
    two.set_all(1)
    assert (3, 3, 8, 8) == (one.count(place), two.count(place), one.all, two.all)
    memory[0][:] = memoryview(bytearray(4 * REGION_WORDS)).cast("I")  # the process has died, and its region is cleared
    assert (1, 1) == (two.count(place), two.all)
    two.add(place, -1)
    assert 0 == two.count(place)


def test_counts_are_never_too_low_and_hardly_too_high() -> None:
    """With 20,000 connections of 5,000 addresses, by a seeded choice, a count is at most a few too high."""
    memory = regions(2)
    processes = [Counts(own, memory) for own in memory]
    hasher, chosen = Hasher(SECRET), random.Random(7)
    true: dict[str, int] = {}
    for _ in range(20_000):
        key = f"address:{int(chosen.expovariate(1 / 800))}"
        true[key] = true.get(key, 0) + 1
        chosen.choice(processes).add(hasher.place(key), 1)
    errors = [processes[0].count(hasher.place(key)) - number for key, number in true.items()]
    assert 0 == min(errors)
    assert max(errors) <= 8
    assert sum(errors) / len(errors) < 0.5


@pytest.mark.parametrize("slots", [COUNT_SLOTS, RATE_SLOTS])
def test_slots_are_a_power_of_two(slots: int) -> None:
    """A mask selects them."""
    assert 0 == slots & (slots - 1)
