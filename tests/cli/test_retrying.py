"""What is reported of a server that does not answer."""

from __future__ import annotations

import asyncio
import socket

import pytest

from oncecast.cli import retrying
from oncecast.cli.retrying import RetryNotice
from oncecast.client.backoff import Backoff
from oncecast.client.failures import Broken, Unavailable, Unreachable
from oncecast.client.url import ServerUrl
from tests.cli.conftest import Fake, call, complaint

URL = ServerUrl.parse("http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def _without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(Backoff, "next_delay", lambda *args, **options: 0.0)


@pytest.mark.parametrize("stdin", [None, b"x\n", b"x\ny\n"])
def test_waiting_is_reported_once(fake: Fake, stdin: bytes | None) -> None:
    """A server that is away is one line, however many attempts fail alike, and one more when it answers again."""
    fake.statuses = [503] * 3
    data = ["x"] if stdin is None else []
    result = call("pub", "c", *data, stdin=stdin, ONCECAST_URL=fake.url)
    waiting = "not\\x1b you; trying again for up to 60 s"
    assert [waiting, f"{fake.url} answers again"] == result.stderr.splitlines()
    assert (0, 4) == (result.exit_code, len(fake.posted))


async def test_each_reason_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Another reason is another line; so is the same one after the server has answered."""
    notice = RetryNotice(URL)
    for error in (Broken("a."), Broken("a."), Unreachable("b"), Unavailable("c", status=502)):
        await notice.retry(error)
    notice.answered()
    notice.answered()
    await notice.retry(Broken("c"))
    expected = [*(f"{reason}; trying again for up to 60 s" for reason in "abc"), f"{URL} answers again"]
    assert [*expected, "c; trying again for up to 60 s"] == capsys.readouterr().err.splitlines()


async def test_a_pace_is_no_outage(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate limit is reported once for the whole run."""
    notice = RetryNotice(URL)
    for _ in range(3):
        await notice.retry(Unavailable("Publish less.", status=429))
        notice.answered()
    assert "Publish less: going on at that pace\n" == capsys.readouterr().err


@pytest.mark.parametrize("command", [["pub", "c", "x"], ["sub", "c"], ["sub", "c", "--no-follow"]], ids=" ".join)
def test_http_where_it_should_be_https(tls: Fake, command: list[str]) -> None:
    """A server of TLS closes a plain connection without a word: the command finds out, and says what to write."""
    result = call(*command, ONCECAST_URL=tls.url)
    assert (1, "") == (result.exit_code, result.stdout)
    expected = f"Error: {tls.url} speaks TLS: give --server {tls.url.replace('http', 'https')}"
    assert expected == result.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", [["pub", "c", "x"], ["sub", "c", "--no-follow"]], ids=" ".join)
def test_https_where_it_should_be_http(fake: Fake, command: list[str]) -> None:
    """The cause that is named is the scheme, and not a server that is not there."""
    url = fake.url.replace("http", "https")
    expected = f"no server answers at {url}: it does not speak TLS: try http:// instead of https://"
    assert expected == complaint(call(*command, ONCECAST_URL=url), 1)


@pytest.mark.parametrize(
    "error, reason",
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "the host name has no address"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "the host name can't be looked up now"),
        (TimeoutError(), "it took too long"),
    ],
)
def test_a_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str) -> None:
    """A name without an address is not a server to start."""

    async def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(asyncio, "open_connection", fail)
    expected = f"no server answers at http://h.example: {reason}: give another --server, or set ONCECAST_URL"
    assert expected == complaint(call("pub", "c", "x", "--server", "http://h.example"), 1)


def test_a_proxys_answer(fake: Fake) -> None:
    """An answer that is not Oncecast's is named as that."""
    fake.status = 405
    expected = "the server answers 405, but not as Oncecast: it is a proxy or another server"
    fake.answer = "<html>"
    assert expected == complaint(call("pub", "c", "x", ONCECAST_URL=fake.url), 1)


async def test_what_does_not_speak_tls(fake: Fake) -> None:
    """A plain server is not taken for one of TLS, nor is a URL that says https already, nor a free port."""
    await retrying.check_scheme(ServerUrl.parse(fake.url))
    await retrying.check_scheme(ServerUrl.parse("https://127.0.0.1:1"))
    await retrying.check_scheme(URL)
