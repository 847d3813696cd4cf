"""`oncecast sub --no-follow`: what there is, then the end."""

from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Fake, call, complaint


def page(*seqs: int, cursor: str, **fields: object) -> dict[str, object]:
    """Return the answer to a poll."""
    messages = [{"id": f"e-{seq}", "channel": "c", "data": seq, "event": None, "time": 1.5} for seq in seqs]
    return {"messages": messages, "cursor": cursor, "gap": None, **fields}


def backlog(fake: Fake, *arguments: str) -> tuple[str, int]:
    """Call the command; return what it printed and its exit code."""
    result = call("sub", "c", "--no-follow", *arguments, ONCECAST_URL=fake.url)
    return result.stdout, result.exit_code


@pytest.mark.parametrize(
    "polls",
    [
        [page(1, 2, cursor="e-2"), page(3, cursor="e-3")],  # the end as it was at the first request
        [page(1, 2, 3, cursor="e-5")],
        [page(1, 2, 3, cursor="f-1"), page(cursor="f-1")],  # another epoch: an empty page
        [page(1, 2, 3, cursor="e-2"), page(cursor="e-2")],
    ],
)
def test_what_there_is(fake: Fake, polls: list[dict[str, object]]) -> None:
    """It reads from the oldest message to where the log ended when it began, and exits with 0."""
    fake.polls = [page(cursor="e-3"), *polls, page(9, cursor="e-9")]
    assert ("1\n2\n3\n", 0) == backlog(fake)
    assert ["after=latest", "after=earliest"] == [re.findall("after=[^&]*", path)[0] for path in fake.asked[:2]]
    assert 1 == len(fake.polls)


@pytest.mark.parametrize(
    "arguments, expected",
    [(["--last", "2"], "last=2&"), (["--after", "e-1"], "after=e-1&"), (["--since", "5"], r"since=5\.000&")],
)
def test_where_it_begins(fake: Fake, arguments: list[str], expected: str) -> None:
    """A start is passed on."""
    fake.polls = [page(cursor="e-3"), page(cursor="e-3")]
    assert ("", 0) == backlog(fake, *arguments)
    assert re.search(expected, fake.asked[1])


def test_it_stops_after_a_count(fake: Fake) -> None:
    """It ends after `--count` messages."""
    fake.polls = [page(cursor="e-3"), page(1, 2, 3, cursor="e-3")]
    assert ("1\n2\n", 0) == backlog(fake, "--count", "2")


def test_a_gap_is_reported(fake: Fake) -> None:
    """A gap is a line on standard error."""
    gap = {"channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": "e-2", "cursor": "e-2"}
    fake.polls = [page(cursor="e-3"), page(3, cursor="e-3", gap=gap)]
    result = call("sub", "c", "--no-follow", ONCECAST_URL=fake.url)
    assert ("3\n", "gap in c: missed e-1 to e-2 (expired)\n") == (result.stdout, result.stderr)


def test_wrong_calls(fake: Fake) -> None:
    """A transport is not chosen with it; a refusal is one line."""
    expected = "--no-follow reads by polling: leave --transport out"
    assert expected == complaint(call("sub", "c", "--no-follow", "--transport", "sse"), 2)
    assert complaint(call("sub", "c", "--no-follow", ONCECAST_URL=fake.url), 1).startswith("the server answers 403")


def test_a_server_that_never_answers_well(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up at the end of the patience, with what was waited for."""
    monkeypatch.setattr("oncecast.client.backoff.Backoff.next_delay", lambda *args, **options: 0.0)
    monkeypatch.setattr("oncecast.cli.backlog.PATIENCE", 0.0)
    fake.polls = [{"nonsense": 1}] * 100
    result = call("sub", "c", "--no-follow", ONCECAST_URL=fake.url)
    assert 1 == result.exit_code
    assert "Error: the server's answer is not a page of messages" == result.stderr.splitlines()[-1]


def test_answers_that_fail_alike_are_tried_again(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is malformed again and again is not given up before the patience ends."""
    monkeypatch.setattr("oncecast.client.backoff.Backoff.next_delay", lambda *args, **options: 0.0)
    malformed: list[dict[str, object]] = [{"nonsense": 1}] * 7
    fake.polls = [*malformed, page(cursor="e-1"), page(1, cursor="e-1")]
    result = call("sub", "c", "--no-follow", ONCECAST_URL=fake.url)
    assert ("1\n", 0) == (result.stdout, result.exit_code)
    waiting = "the server's answer is not a page of messages; trying again for up to 60 s"
    assert [waiting, f"{fake.url} answers again"] == result.stderr.splitlines()
