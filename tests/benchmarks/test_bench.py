"""The benchmarks: each runs through the command line at a tiny size, and what they stand on does what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from benchmarks import asgi, catalogue, report, requests, rival
from benchmarks.arena import Arena, floor_block, payload, subscriber_request
from benchmarks.base import BenchError, Measured, Plan, Row, alternate, percentile
from benchmarks.processes import Bench, Program
from benchmarks.tools import compiled
from oncecast.cli.bench import NAMES
from oncecast.cli.commands import commands
from oncecast.wire.ws_connection import DataReceived, Role, WebSocketConnection

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks need Linux's /proc")

ROWS = {
    "fanout": ["fanout, websocket", "fanout, sse"],
    "burst": ["burst of 50, websocket", "burst of 50, sse"],
    "deflate": ["deflate"],
    "idle": ["idle, websocket", "idle, sse"],
    "latency": [f"latency {which}, {transport}" for transport in ("websocket", "sse") for which in ("p99", "mean")],
    "poll": ["poll"],
    "publish": ["publish"],
    "guarded": ["guarded fanout, websocket", "guarded fanout, sse", "guarded poll", "guarded poll, token"],
    "stalled": ["stalled, latency p99", "stalled, memory", "stalled, silent loss"],
    "scale": ["scale, subscribers", "scale, channels", "scale, channels of one", "scale, channels of ten"],
    "storm": [f"{row}, {transport}" for transport in ("websocket", "sse") for row in ("storm", "storm latency p99")],
    "durable": ["publish, process", "publish, fsync", "two workers", "replay", "replay, latency p99"],
    "asgi": [
        f"asgi, {transport}, {row}"
        for transport, libraries in asgi.LIBRARIES.items()
        for row in (asgi.OURS, *(library.name for library in libraries), "cheapest")
    ]
    + ["asgi, beside, the application's route", "asgi, beside, a poll"],
    "broker": [],  # tests/benchmarks/test_broker.py
}


def run(*arguments: str) -> Result:
    """Run `oncecast bench`."""
    return CliRunner().invoke(commands, ["bench", *arguments])


def row(**fields: Any) -> Row:
    """A row of which only these fields matter."""
    return Row(**{"name": "n", "unit": "u", "figure": 1.0, **fields})


def folders() -> list[tuple[str, str]]:
    """The working directory of each process that we may look at: a run's have its folder, even when that is gone."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process.name, os.readlink(process / "cwd")))
    return found


@pytest.fixture
def programs() -> Path:
    """The folder of the compiled programs."""
    return compiled(os.environ)


def test_every_benchmark_can_be_named() -> None:
    """The command knows the names of the catalogue, without importing it, and this file tests each."""
    assert set(catalogue.BENCHMARKS) == set(NAMES) == set(ROWS)


@pytest.mark.parametrize("name", [name for name in NAMES if ROWS[name]])
def test_a_benchmark_measures(name: str) -> None:
    """Each benchmark yields its rows, with figures that a working server could have."""
    # Memory grows by pages: a dozen may find room in those that there are.
    result = run(name, "--quick", "--subscribers", "500" if name == "idle" else "12", "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    answer = json.loads(result.stdout)
    assert {"cpu", "cores", "system", "python"} == answer["machine"].keys()
    assert ROWS[name] == [found["name"] for found in answer["rows"]]
    for found in answer["rows"]:
        assert found["unit"]
        assert found["note"]
        if found["floor"]:
            assert found["floor"] > 0
        if found["ratio"] is not None and found["name"] != "stalled, silent loss":
            assert 0.01 < found["ratio"] < 1000
            assert found["low"] is None or found["low"] <= found["high"]
        if found["target"] is not None and found[found["judged"]] is not None:
            assert (found[found["judged"]] <= found["target"]) is found["met"]


@pytest.mark.parametrize("name", ["fanout", "idle"])
def test_tls_is_measured_beside_plain(name: str) -> None:
    """With --tls there is a second row, with a floor of its own; TLS costs more than none, and more than its floor."""
    result = run(name, "--quick", "--subscribers", "100", "--transport", "websocket", "--tls", "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    plain, secure = json.loads(result.stdout)["rows"]
    assert (f"{name}, websocket", f"{name}, websocket, TLS") == (plain["name"], secure["name"])
    assert secure["figure"] > plain["figure"]
    assert secure["floor"] > plain["floor"]


def test_what_is_not_measured_with_tls() -> None:
    """Another benchmark says so."""
    result = run("poll", "--tls")
    assert "poll: --tls is for fanout and idle\n" == result.stderr


def test_no_stalled_reader_misses_a_message_silently() -> None:
    """Those who read nothing while messages went by then see each of them, or a gap."""
    (lost,) = json.loads(run("stalled", "--quick", "--subscribers", "5", "--json").stdout)["rows"][2:]
    assert 0.0 == lost["figure"]
    assert "having read on, 5 of 5 had a gap" in lost["note"]


@pytest.mark.parametrize("name", ["fanout", "burst", "idle", "latency", "storm"])
def test_one_transport_can_be_asked_for(name: str) -> None:
    """Benchmarks of both transports measure the one that is asked for, and no other."""
    result = run(name, "--quick", "--subscribers", "5", "--transport", "sse", "--json")
    assert (0, "") == (result.exit_code, result.stderr)
    assert [row for row in ROWS[name] if row.endswith("sse")] == [
        row["name"] for row in json.loads(result.stdout)["rows"]
    ]


def test_a_table_and_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --json it prints a line as it comes, and with --markdown a table that names the machine."""
    shown = row(name="fanout", figure=10.0, floor=8.0, ratio=1.25, low=1.2, high=1.3, target=1.25, note="so many")
    monkeypatch.setattr(catalogue, "BENCHMARKS", {"fanout": lambda bench, plan: iter([shown])})
    table = run("fanout").stdout.splitlines()
    assert report.HEADINGS[:4] == tuple(table[0].split()[:4])
    assert ["fanout", "10.00", "8.00", "1.25", "1.20–1.30", "≤", "1.25", "met"] == table[1].split()
    assert "    u; so many" == table[2]
    page = run("fanout", "--markdown").stdout.splitlines()
    assert "cores" in page[0]
    assert "| fanout | 10.00 u | 8.00 | 1.25 | 1.20–1.30 | ≤ 1.25 | met | so many |" == page[-1]


def test_one_that_fails_does_not_keep_the_others_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be measured here is said in a line, the rest is measured, and the exit code tells."""

    def broken(bench: Bench, plan: Plan) -> Any:
        raise BenchError("no\x1bthing")

    others = {name: lambda bench, plan: iter([row()]) for name in NAMES}
    monkeypatch.setattr(catalogue, "BENCHMARKS", {**others, "idle": broken})
    result = run("--json")
    assert (1, "idle: no\\x1bthing\n") == (result.exit_code, result.stderr)
    assert len(NAMES) - 1 == len(json.loads(result.stdout)["rows"])


def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, nothing is tried."""
    monkeypatch.setattr(sys, "platform", "darwin")
    result = run("fanout")
    assert 1 == result.exit_code
    assert "Linux" in result.stderr


def test_a_terminated_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM ends the servers and programs of the run, and its folder is gone."""
    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    argv = [sys.executable, "-m", "oncecast", "bench", "fanout", "--subscribers", "3"]
    child = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()  # the headings: it is about to begin, or has
        child.stdout.readline()  # a row: servers and programs were running
        child.send_signal(signal.SIGTERM)
        assert 128 + signal.SIGTERM == child.wait(20)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert [] == list(tmp_path.iterdir())
    deadline = time.monotonic() + 20  # a killed process is listed until its parent has taken its end
    while left := [pid for pid, folder in folders() if folder.startswith(str(tmp_path))]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


# -- what they stand on


@pytest.mark.parametrize(
    "fields, met",
    [
        ({"ratio": 1.2, "target": 1.2}, True),
        ({"ratio": 1.3, "target": 1.2}, False),
        ({"figure": 5.0, "ratio": 9.0, "judged": "figure", "target": 6.0}, True),
        ({"figure": 5.0, "target": 6.0}, None),
        ({"ratio": 1.0}, None),
    ],
)
def test_a_row_is_met_or_missed(fields: dict[str, Any], met: bool | None) -> None:
    """What is judged is compared with the target; without either, nothing is claimed."""
    assert met is row(**fields).met


def test_measuring_in_turns() -> None:
    """The first of each is not counted; the ratio is the median of the pairs', not the ratio of the medians."""
    ones, others = iter([99.0, 2.0, 9.0, 4.0]), iter([99.0, 1.0, 3.0, 4.0])
    assert Measured(4.0, 3.0, 2.0, 1.0, 3.0) == alternate(lambda: next(ones), lambda: next(others), 3)


@pytest.mark.parametrize("percent, expected", [(1, 1.0), (50, 2.0), (75, 3.0), (99, 4.0), (100, 4.0)])
def test_percentiles(percent: float, expected: float) -> None:
    """The smallest value that so many percent do not exceed."""
    assert expected == percentile([3.0, 1.0, 4.0, 2.0], percent)


@pytest.mark.parametrize("data_bytes", [60, 500])
def test_a_publish_has_the_size_that_is_said(data_bytes: int) -> None:
    """The data is JSON of so many bytes, with room for the message's number."""
    frame = json.loads(payload(data_bytes))
    assert "^########" == frame["data"]["n"]
    assert data_bytes == len(json.dumps(frame["data"], separators=(",", ":")))


@pytest.mark.parametrize("mode", ["websocket", "frames", "sse"])
@pytest.mark.parametrize("size", [62, 127, 130, 180, 504])
def test_the_floor_sends_as_many_bytes(mode: str, size: int) -> None:
    """Its block has the size of the server's sends, and is one message to whoever reads it."""
    block = floor_block(mode, size)
    assert size == len(block)
    if mode == "sse":
        assert (1, True) == (block.count(b"\n\n"), block.endswith(b"\n\n"))
    else:
        (event,) = WebSocketConnection(Role.CLIENT, max_message_bytes=1024).receive(block)
        assert isinstance(event, DataReceived)


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    """No traceback: one line."""
    with pytest.raises(BenchError, match="install a C compiler"):
        compiled({"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)})


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    """Its complaint is part of the line, and nothing half made stays."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no such header >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(BenchError, match="no such header"):
        compiled({"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert [] == [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_programs_are_compiled_once(tmp_path: Path) -> None:
    """The second time they are there already, and no compiler is needed."""
    made = compiled({**os.environ, "XDG_CACHE_HOME": str(tmp_path)})
    assert made == compiled({"XDG_CACHE_HOME": str(tmp_path), "PATH": ""})
    assert {"sink", "floor", "load"} == {path.name for path in made.iterdir()}


def test_the_cache_is_in_the_home_where_nothing_else_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG's default."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compiled({"PATH": os.environ["PATH"]}).is_relative_to(tmp_path / ".cache" / "oncecast")


def test_a_server_that_does_not_start_says_why(programs: Path) -> None:
    """The last of what it printed is in the error."""
    with Bench(programs) as bench, pytest.raises(BenchError, match="ONCECAST_PROT is not a setting"):
        bench.server(prot=1)


def test_a_refused_request_is_an_error(programs: Path) -> None:
    """Of the server's answers, and of those that the programs get."""
    with Bench(programs) as bench:
        server = bench.server()
        with pytest.raises(BenchError, match="GET /v1/nothing: 404"):
            server.request("GET", "/v1/nothing")
        with pytest.raises(BenchError, match="404"):
            bench.load(server.port, 1, b"GET /v1/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").command("run 1")
        request = bench.file(subscriber_request("websocket", "not a name"))
        with pytest.raises(BenchError, match=r"refused: HTTP/1\.1 400"):
            bench.sink(server.port, "websocket").command(f"subscribe 1 {request} 1 0 0")


def test_a_program_that_is_gone_is_an_error(programs: Path) -> None:
    """A command to it fails with what it said last."""
    with Bench(programs) as bench:
        program: Program = bench.sink(1, "websocket")
        with pytest.raises(BenchError, match="unknown command: nonsense"):
            program.command("nonsense")
        with pytest.raises(BenchError, match="the program ended"):
            program.command("check")


def test_a_server_that_dies_is_noticed_by_its_subscribers(programs: Path) -> None:
    """They are closed, and a benchmark that counts on them fails."""
    with Bench(programs) as bench:
        server = bench.server()
        arena = Arena(bench, server, "sse")
        arena.subscribe(3)
        server.child.kill()
        server.child.wait()
        assert 3 == arena.sink.command("await 0.2")["closed"]


def test_what_will_not_stop_is_killed(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process outlives the run."""
    monkeypatch.setattr("benchmarks.processes.STOP_SECONDS", 0.2)
    with Bench(programs) as bench:
        server = bench.server()
        server.child.send_signal(signal.SIGSTOP)
    assert -signal.SIGKILL == server.child.returncode


def test_without_nginx_there_is_a_figure_and_no_ratio(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note says how to get the ratio."""
    monkeypatch.setattr(requests, "nginx", lambda bench, body: None)
    with Bench(programs) as bench:
        (found,) = catalogue.BENCHMARKS["poll"](bench, Plan(quick=True))
    assert (None, None) == (found.ratio, found.met)
    assert found.figure > 0
    assert rival.MISSING in found.note


def test_a_library_that_is_missing_is_named(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with Bench(programs) as bench, pytest.raises(BenchError, match=r"sse-starlette is not installed: run `make .make/"):
        list(asgi.run(bench, Plan(quick=True, subscribers=3, transport="sse")))


def test_a_library_whose_listeners_do_not_come_is_no_figure(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener of Socket.IO that says nothing after the handshake is not one yet: nothing is measured without it."""
    monkeypatch.setattr(asgi, "READY_SECONDS", 0.3)
    found = next(library for library in asgi.LIBRARIES["websocket"] if library.greeting)
    silent = dataclasses.replace(found, greeting=b"")
    monkeypatch.setattr(asgi, "LIBRARIES", {"websocket": (silent,)})
    with Bench(programs) as bench, pytest.raises(BenchError, match="python-socketio has 0 of 3 listeners"):
        list(asgi.run(bench, Plan(quick=True, subscribers=3, transport="websocket")))


def test_nginx_is_looked_for(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed, there is none."""
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    with Bench(programs) as bench:
        assert None is rival.nginx(bench, b"")
