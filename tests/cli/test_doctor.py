"""`oncecast doctor`: what it prints, its exit codes, and wrong calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from oncecast.doctor.findings import CHECKS
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from tests.cli.conftest import SECONDS, Fake, call, complaint, free_port


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a sound server, on a loop in a thread."""
    ports: list[int] = []
    started, ended = threading.Event(), asyncio.Event()

    async def serve() -> None:
        server = Server(Settings(port=0))
        await server.start()
        ports.append(server.port)
        started.set()
        await ended.wait()
        await server.stop(0)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(SECONDS)
    yield f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(ended.set)
    thread.join(SECONDS)
    with contextlib.suppress(RuntimeError):
        loop.close()


def test_a_sound_server(url: str) -> None:
    """Each check has a line, the last line says that nothing is wrong, and the exit code is 0."""
    result = call("doctor", url, "--channel", "a", "--quiet-seconds", "0.2")
    assert 0 == result.exit_code
    lines = result.output.splitlines()
    assert lines[0].startswith(url)
    assert lines[-1] == f"Nothing is wrong in {len(CHECKS) - 2} checks."
    assert [name for name in CHECKS if name not in ("origin", "cors")] == [
        line.split()[1] for line in lines if line.startswith("  ok")
    ]


def test_a_finding(url: str) -> None:
    """It is marked, its cure stands below it, and the exit code is 1."""
    result = call("doctor", url, "--origin", "https://page.example", "--quiet-seconds", "0")
    assert 1 == result.exit_code
    lines = result.output.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("  WRONG")]
    assert ["WRONG", "origin"] == lines[at].split()[:2]
    assert lines[at + 1].strip().startswith("→ ")
    assert f"1 of {len(CHECKS)} checks found something wrong; 2 could not be made." == lines[-1]


def test_json(url: str) -> None:
    """It has the same, by names that stay."""
    result = call("doctor", url, "--quiet-seconds", "0", "--json", "--proxy", "caddy")
    assert 0 == result.exit_code
    found = json.loads(result.output)
    assert {"url", "proxy", "wrong", "findings"} == set(found)
    assert (url, "caddy", 0) == (found["url"], found["proxy"], found["wrong"])
    verdicts = {each["check"]: each["verdict"] for each in found["findings"]}
    assert {"quiet": "unknown", "upgrade": "well"}.items() <= verdicts.items()
    assert {"check", "verdict", "text", "cure"} == set(found["findings"][0])


def test_another_server(fake: Fake) -> None:
    """What is no Oncecast is one finding, and nothing else is looked at."""
    result = call("doctor", fake.url, "--json")
    assert 1 == result.exit_code
    verdicts = [each["verdict"] for each in json.loads(result.output)["findings"]]
    assert ["wrong", *["unknown"] * (len(CHECKS) - 3)] == verdicts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ftp://x"], "'ftp://x' is not a server's URL: write http://host:port or https://host:port"),
        (["http://127.0.0.1:1", "--proxy", "squid"], "Invalid value for '--proxy': 'squid' is not one of 'nginx', "),
        (["http://127.0.0.1:1", "--quiet-seconds", "-1"], "Invalid value for '--quiet-seconds': -1"),
        ([f"http://127.0.0.1:{free_port()}"], "no server answers at http://127.0.0.1:"),
        (["http://127.0.0.1:1", "--channel", "a b"], "'a b' is not a channel name"),
        (["http://127.0.0.1:1", "--origin", "page"], "--origin: write an origin as in https://app.example.com"),
    ],
)
def test_wrong_calls(arguments: list[str], says: str) -> None:
    """Each is one line, and the exit code is 2."""
    assert complaint(call("doctor", *arguments), 2).startswith(says)


def test_a_server_of_tls(tls: Fake) -> None:
    """The URL that says http is corrected."""
    assert f"{tls.url} speaks TLS: begin the URL with https://" == complaint(call("doctor", tls.url), 2)
