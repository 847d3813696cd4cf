"""How a request says which channels it wants, and where to start."""

from __future__ import annotations

import pytest

from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Cursor, Start, StartKind
from oncecast.policy.limits import Limits
from oncecast.policy.quotas import Quotas
from oncecast.policy.sketch import Hasher
from oncecast.protocol.base import TransportSettings
from oncecast.protocol.query import Query, check_count, parse_channels, parse_query, parse_start


def test_channels_are_taken_once_in_order() -> None:
    """Names are separated by commas; a repeated one counts once."""
    assert ("b", "a", "c") == parse_channels("b,a,b,c,a")


@pytest.mark.parametrize("names", ["", "a,", ",a", "a,,b", "a, b", "-a", "x" * 129])
def test_a_bad_name_refuses_them_all(names: str) -> None:
    """One name that is none makes the request invalid."""
    with pytest.raises(Refusal, match="channel name"):
        parse_channels(names)


@pytest.mark.parametrize(
    "query, start",
    [
        ("", None),
        ("other=1&other=2", None),
        ("after=latest", LATEST),
        ("after=earliest", EARLIEST),
        ("after=e-7", Start(StartKind.CURSOR, Cursor("e", 7))),
        ("last=0", Start(StartKind.LAST, number=0)),
        ("last=25", Start(StartKind.LAST, number=25)),
        ("since=1764000000.5", Start(StartKind.SINCE, number=1764000000.5)),
    ],
)
def test_a_query_says_where_to_start(query: str, start: Start | None) -> None:
    """Each way to begin is read; fields of others are ignored."""
    if query.startswith("other"):
        with pytest.raises(Refusal, match="twice"):
            parse_query("after=latest&after=latest")
        query = "other=1"
    assert start == parse_query(query).start


def test_the_rest_of_a_query() -> None:
    """`wait`, `limit` and `envelope` are read."""
    assert Query(None, 2.5, 10, True) == parse_query("wait=2.5&limit=10&envelope=1")
    assert Query(None, None, None, False) == parse_query("envelope=false")
    assert not parse_query("envelope=").envelope


@pytest.mark.parametrize(
    "query, code",
    [
        ("after=", "cursor_invalid"),
        ("after=newest", "cursor_invalid"),
        ("last=-1", "request_invalid"),
        ("last=1.5", "request_invalid"),
        ("last=" + "9" * 19, "request_invalid"),
        ("last=0000000000000000001", "request_invalid"),
        ("limit=" + "9" * 19, "request_invalid"),
        ("since=" + "9" * 19, "request_invalid"),
        ("since=1e3", "request_invalid"),
        ("wait=" + "9" * 19, "request_invalid"),
        ("last=\u0663", "request_invalid"),
        ("limit=0", "request_invalid"),
        ("since=soon", "request_invalid"),
        ("since=-1", "request_invalid"),
        ("wait=nan", "request_invalid"),
        ("wait=inf", "request_invalid"),
        ("after=latest&last=1", "request_invalid"),
        ("since=1&last=1", "request_invalid"),
        ("limit=1&limit=1", "request_invalid"),
        ("a=%ff", "request_invalid"),
        ("&".join(f"f{n}=1" for n in range(33)), "request_invalid"),
    ],
)
def test_a_bad_query_is_refused(query: str, code: str) -> None:
    """A query without a meaning is refused with the code of the part that is wrong."""
    with pytest.raises(Refusal) as refusal:
        parse_query(query)
    assert code == refusal.value.code


def test_last_and_since_in_a_frame_are_not_negative() -> None:
    """A frame's numbers are numbers already, and are held to the same rule."""
    with pytest.raises(Refusal, match="0 or more"):
        parse_start(None, -1, None)
    with pytest.raises(Refusal, match="0 or more"):
        parse_start(None, None, -0.5)


@pytest.mark.parametrize("number", [10**18, 2**63, 10**26, 10**400])
def test_numbers_have_one_bound_in_a_query_and_in_a_frame(number: int) -> None:
    """A query and a frame have the same largest `last` and `since`, and refuse a greater one."""
    with pytest.raises(Refusal, match="18 digits"):
        parse_query(f"last={number}")
    with pytest.raises(Refusal, match="18 digits"):
        parse_start(None, number, None)
    if number < 10**300:
        with pytest.raises(Refusal, match="18 digits"):
            parse_start(None, None, float(number) * 1.01)
    largest = 10**18 - 1
    assert Start(StartKind.LAST, number=largest) == parse_start(None, largest, None)
    assert Start(StartKind.LAST, number=largest) == parse_query(f"last={largest}").start


def test_the_number_of_channels_is_limited() -> None:
    """As many as the limit are fine, one more is refused."""
    quotas = Quotas(Limits(), hasher=Hasher(b"x" * 16))
    check_count(("a", "b"), TransportSettings(channels_per_subscription=2, quotas=quotas))
    assert 0 == quotas.refused["channels_per_subscription"]
    for known in (quotas, None):
        with pytest.raises(Refusal, match="at most 1 channels"):
            check_count(("a", "b"), TransportSettings(channels_per_subscription=1, quotas=known))
    assert 1 == quotas.refused["channels_per_subscription"]
