"""`oncecast sub`: where it begins, what it reports, and how it ends."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import Any, cast

import click
import pytest

from oncecast import AsyncClient, LinkState, Moved, StateChanged
from oncecast.cli import listener
from oncecast.client.ladder import Ladder
from oncecast.client.transports import TRANSPORTS
from tests.cli.conftest import (
    Fake,
    call,
    complaint,
    event,
    listen,
)


def test_sub_reports_gaps_and_breaks(fake: Fake) -> None:
    """Gaps and reconnects are a line each on standard error, and the messages go on."""
    gap = b'event: gap\ndata: {"channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": null, '
    gap += b'"cursor": "e-4"}\n\n'
    fake.streams = [gap + event(5, data="x"), event(5, data="x") + event(6, data="y")]
    result = listen(fake, "c", "--count", "2", "--after", "e-0")
    assert "x\ny\n" == result.stdout
    gap_line, first, lost, again = sorted(result.stderr.splitlines())
    assert "gap in c: missed e-1 to an unknown end (expired)" == gap_line
    assert ("listening again over sse", "listening to c over sse") == (first, lost)
    assert "the server ended the stream; trying again until it is back" == again
    assert ["after=e-0", "after=e-5"] == [re.findall("after=[^&]*", path)[0] for path in fake.asked]


class FakeClient:
    """Takes callbacks as a client does, and calls them."""

    def __init__(self) -> None:
        self.callbacks: dict[str, Callable[[Any], object]] = {}

    def on(self, kind: str, callback: Callable[[Any], object]) -> None:
        """Keep the callback."""
        self.callbacks[kind] = callback

    def state(self, after: LinkState, reason: str) -> None:
        """Tell of a state."""
        self.callbacks["state"](StateChanged(LinkState.CONNECTING, after, reason))


@pytest.fixture
def client() -> FakeClient:
    """A client of which `sub` tells."""
    client = FakeClient()
    listener._report(cast(AsyncClient, client), ["c", "d", "c"])
    return client


def test_sub_reports_a_reason_once(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Attempts that fail alike are one line, until it listens again; what the user need not know is none."""
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.CONNECTING, "sse")
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.LISTENING, "sse")
    client.state(LinkState.WAITING, "down.")
    client.state(LinkState.WAITING, "not\x1b there")
    client.state(LinkState.LISTENING, "sse")
    client.state(LinkState.CLOSED, "")
    assert [
        "down; trying again until it is back",
        "listening to c, d over sse",
        "down; trying again until it is back",
        "not\\x1b there; trying again until it is back",
        "listening again over sse",
    ] == capsys.readouterr().err.splitlines()


def test_sub_reports_transports(client: FakeClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Each move from one transport to another is a line with its reason."""
    ladder = Ladder(list(TRANSPORTS), proof=10.0, on_move=cast(Callable[[Moved], None], client.callbacks["transport"]))
    ladder.unsuited("websocket", "the server answers 400")
    for _ in range(2):
        ladder.broke("sse", None, "cut.")
    ladder.works("websocket")
    assert [
        "websocket does not work here: the server answers 400; turning to another transport",
        "sse is cut again and again: cut; turning to another transport",
        "websocket gets through again; turning to it",
    ] == capsys.readouterr().err.splitlines()


def test_sub_goes_on_where_standard_error_is_full(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error on a full disk costs no message."""
    echo = click.echo

    def failing(message: object = None, *, err: bool = False, **options: Any) -> None:
        if err:
            raise OSError(errno.ENOSPC, "No space left")
        echo(message, **options)

    monkeypatch.setattr(click, "echo", failing)
    fake.streams = [event(1, data="x")]
    result = listen(fake, "c", "--count", "1")
    assert (0, "x\n", "") == (result.exit_code, result.stdout, result.stderr)


def test_sub_falls_back(fake: Fake) -> None:
    """Where the handshake of a WebSocket is answered with a stream, it turns to the stream."""
    fake.streams = [b"", event(1, data="x")]
    result = call("sub", "--server", fake.url, "c", "--count", "1")
    turning, listening = result.stderr.splitlines()
    assert re.fullmatch("websocket does not work here: .*; turning to another transport", turning)
    assert ("listening to c over sse", "x\n", 0) == (listening, result.stdout, result.exit_code)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--last", "3"], r"last=3&"),
        (["--since", "1700000000.5"], r"since=1700000000\.500&"),
        (["--since", "2h"], r"since=1\d{9}\.\d{3}&"),
        (["--after", "earliest"], r"after=earliest&"),
    ],
)
def test_sub_starts(fake: Fake, arguments: list[str], expected: str) -> None:
    """Where to begin is passed on, an age as a moment."""
    fake.streams = [event(1, data="x")]
    listen(fake, "c", "--count", "1", *arguments)
    assert re.search(expected, fake.asked[0])


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--last", "1", "--after", "e-1"], "give one of --after, --last and --since"),
        (["--after", "a b"], "'a b' is not a cursor: give a message's id, or latest, or earliest"),
        (["--since", "soon"], "'soon' is not a time: give Unix seconds, or an age such as 90s, 10m, 2h or 1d"),
    ],
)
def test_sub_called_wrongly(fake: Fake, arguments: list[str], expected: str) -> None:
    """A start that is none is refused before anything is asked."""
    assert expected == complaint(listen(fake, "c", *arguments), 2)


def test_sub_refused(fake: Fake) -> None:
    """A refusal ends it with one line."""
    assert complaint(listen(fake, "c"), 1).startswith("the server answers 403, but not as Oncecast")
