"""`oncecast compare`: wrong calls, and a whole run as its own process with a terminal's Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from oncecast.cli.compare import printable
from oncecast.compare.report import ORDER
from tests.cli.conftest import SECONDS, Fake, call, complaint, free_port
from tests.compare.conftest import blocked, report_of

COMPARE = (sys.executable, "-m", "oncecast", "compare")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--rate", "1e9"], "--rate: give from 0.01 to 200 messages a second, not 1e+09"),
        (["--listeners", "0"], "--listeners: give from 1 to 100 listeners on each transport, not 0"),
        (["--seconds", "nan"], "--seconds: give from 1 to 3600 seconds, not nan"),
        (["--rate", "200", "--listeners", "50"], "10000 deliveries a second on each transport are more than 1000: "),
        (["--json", "--markdown"], "give --json or --markdown, not both"),
        (["ftp://x"], "'ftp://x' is not a server's URL: write http://host:port or https://host:port"),
        (["--through", "x"], "proxy: write http://host:port or http://user:password@host:port"),
        (["--schedule", "gossip"], "Invalid value for '--schedule': 'gossip' is not one of 'chat', 'ticker', "),
    ],
)
def test_wrong_calls(arguments: list[str], says: str) -> None:
    """Each is one line that says what to give, and nothing was started."""
    assert complaint(call("compare", *arguments), 2).startswith(says)


def test_a_server_that_is_away() -> None:
    """It says so at once, and how to go on."""
    url = f"http://127.0.0.1:{free_port()}"
    expected = (
        f"no server answers at {url}: connection refused: start a server there, or leave the URL out to compare on "
        "servers that are started for it"
    )
    assert expected == complaint(call("compare", url), 1)


def test_a_server_that_refuses(fake: Fake) -> None:
    """Its own words are the reason."""
    fake.status = 403
    assert "not\\x1b you" == complaint(call("compare", fake.url), 1)


def test_what_a_server_says_changes_no_terminal() -> None:
    """A refusal stands in the report with its control characters written out, and nothing else is changed."""
    report = report_of(sse=blocked("sse", "not\x1b[2J you"))
    shown = printable(report)
    assert "not\\x1b[2J you" == shown.lane("sse").reason
    assert report.lane("websocket") == shown.lane("websocket")
    assert report_of() == printable(report_of())


def test_a_server_that_wants_a_token(fake: Fake) -> None:
    """It says where the token is to be given; one that is given is sent."""
    fake.status, fake.answer = 401, json.dumps({"error": {"code": "unauthorized", "message": "Send a token."}})
    expected = "Send a token: set ONCECAST_TOKEN to a token or key"
    assert expected == complaint(call("compare", fake.url), 1)
    assert "Send a token." == complaint(call("compare", fake.url, ONCECAST_TOKEN="old"), 1)
    assert "Bearer old" == fake.posted[-1][1]["authorization"]


def test_a_server_of_tls(tls: Fake) -> None:
    """The URL that says http is corrected."""
    assert f"{tls.url} speaks TLS: begin the URL with https://" == complaint(call("compare", tls.url), 1)


def test_a_whole_run_that_ctrl_c_ends(tmp_path: Path) -> None:
    """A terminal has a bar; Ctrl-C gives the figures so far, draws the picture and ends the servers: no failure."""
    picture = tmp_path / "delays.svg"
    terminal, end = os.openpty()
    options = ["--json", "--rate", "20", "--seconds", "600", "--listeners", "1", "--svg", str(picture)]
    process = subprocess.Popen([*COMPARE, *options], stdout=subprocess.PIPE, stderr=end, start_new_session=True)
    os.close(end)
    shown = b""
    try:
        while shown.count(b"publishing") < 10:  # it ends by the test's own limit of time
            shown += os.read(terminal, 65536)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert 0 == process.returncode
    report = json.loads(output)
    assert "interrupted" == report["ended"]
    assert list(ORDER) == [lane["transport"] for lane in report["lanes"]]
    assert [True] * 4 == [lane["cpu_seconds"] is not None for lane in report["lanes"]]
    assert "svg" in ElementTree.fromstring(picture.read_text("utf-8")).tag
    assert 5 == len(children)
    assert [] == [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_a_run_on_a_server(tmp_path: Path) -> None:
    """The table of a run on a URL has no colour in a pipe, fits the width, and says whose CPU time it does not know."""
    with serving(tmp_path) as url:
        options = ["--rate", "20", "--seconds", "1", "--listeners", "1", "--poll-interval", "0.1"]
        run = subprocess.run([*COMPARE, url, *options], capture_output=True, timeout=SECONDS)
    output = run.stdout.decode()
    assert (0, b"") == (run.returncode, run.stderr)
    assert 4 == output.count("not ours")
    assert 4 == output.count("all 20")
    assert "\x1b" not in output
    assert 80 >= max(len(line) for line in output.splitlines())


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run a server as its own process."""
    serve = (sys.executable, "-m", "oncecast", "serve", "--port", "0", "--broker", "memory://")
    process = subprocess.Popen(serve, stderr=subprocess.PIPE, cwd=folder, text=True)
    try:
        assert process.stderr is not None
        yield re.findall(r"http://\S+", process.stderr.readline())[0]
    finally:
        process.kill()
        process.communicate()
