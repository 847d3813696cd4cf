"""The benchmark of brokers: a small run against real servers, what it leaves behind, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from benchmarks import broker
from benchmarks.base import BenchError, Plan
from benchmarks.broker_peers import KINDS, isolated
from benchmarks.processes import Bench
from oncecast.cli.commands import commands
from oncecast.server.brokers import BUILDERS
from scripts.broker_servers import kinds
from scripts.broker_servers.system import Missing
from tests.brokers.servers import Servers

ROWS = [
    "one by one",
    "CPU, one by one",
    "in batches",
    "CPU, publishing node",
    "CPU, listening node",
    "CPU, idle node",
    "delivery p50",
    "delivery p99",
    "1,000 channels",
]


def run(*urls: str) -> Result:
    """Run `oncecast bench broker`."""
    return CliRunner().invoke(commands, ["bench", "broker", "--quick", "--json", *urls])


def check(rows: list[dict[str, Any]], name: str, *, floor: bool) -> None:
    """Each row is there, with a figure that a working server could have, and a floor but for what has none."""
    assert [f"{name}, {row}" for row in ROWS] == [row["name"] for row in rows]
    for row in rows:
        assert row["unit"]
        assert row["note"]
        assert row["figure"] > 0
        assert (row["floor"] is not None) is (floor and not row["name"].endswith("idle node"))


@pytest.mark.parametrize("kind", ["redis", "nats", "rabbitmq", "kafka"])
def test_a_server_is_measured(kind: str, servers: Servers) -> None:
    """All figures, beside the bare client's."""
    server = servers(kind)
    result = run(server.url.partition("?")[0])
    assert (0, "") == (result.exit_code, result.stderr)
    check(json.loads(result.stdout)["rows"], f"127.0.0.1:{server.port}", floor=True)


def test_a_file_is_measured(tmp_path: Path) -> None:
    """A file has no floor, and its folder is empty again."""
    result = run(f"sqlite:///{tmp_path}/log.db")
    assert (0, "") == (result.exit_code, result.stderr)
    check(json.loads(result.stdout)["rows"], "sqlite", floor=False)
    assert [] == list(tmp_path.iterdir())


def test_nothing_is_left_on_the_server(servers: Servers) -> None:
    """The log of the run is deleted, and what was there before is not."""
    server = servers("redis")
    client: Any = redis.Redis(port=server.port)
    client.set("mine", "1")
    before = set(client.keys())
    assert 0 == run(server.url).exit_code
    after = set(client.keys())
    assert b"mine" in after
    assert after <= before  # a key of another test may have had its time
    client.close()


def test_one_that_is_away_does_not_keep_the_others(servers: Servers) -> None:
    """It is named, and the exit code tells."""
    result = run("redis://127.0.0.1:1", servers("redis").url)
    assert 1 == result.exit_code
    assert result.stderr.startswith("broker: 127.0.0.1:1: open: broker: redis://127.0.0.1:1: 127.0.0.1:1 refuses")
    assert len(ROWS) == len(json.loads(result.stdout)["rows"])


@pytest.mark.parametrize(
    "url, text",
    [
        ("what://x", "there is no benchmark for what://"),
        ("redis://127.0.0.1/0?prefix=mine", "leave prefix out of the URL"),
    ],
)
def test_what_can_not_be_measured(url: str, text: str) -> None:
    """One line says why."""
    result = run(url)
    assert 1 == result.exit_code
    assert text in result.stderr
    assert 1 == len(result.stderr.splitlines())


def test_a_url_is_for_this_benchmark_alone() -> None:
    """Another one refuses it."""
    result = CliRunner().invoke(commands, ["bench", "fanout", "redis://x"])
    assert (2, "") == (result.exit_code, result.stdout)
    assert "fanout takes no URL" in result.stderr


def test_a_log_of_its_own() -> None:
    """Options of the URL are kept, and a password is not needed for its name."""
    url = isolated("redis://u:p@h/0?tls_verify=no")
    assert url.startswith("redis://u:p@h/0?tls_verify=no&prefix=bench")


class Standing:
    """A server of `scripts/brokers`, as the benchmark sees it."""

    def __init__(self, url: str, pid: int | None, fault: Exception | None = None) -> None:
        self.url = url
        self.pid = pid
        self.calls: list[str] = []
        self._fault = fault

    def start(self) -> None:
        """Start, or fail."""
        self.calls.append("start")
        if self._fault is not None:
            raise self._fault

    def stop(self) -> None:
        """Stop."""
        self.calls.append("stop")


def test_the_standing_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL each is measured, and stopped if it did not run before; one that is missing is named."""
    standing = {
        "redis": Standing("redis://a", None),
        "nats": Standing("nats://b", 5),
        "valkey": Standing("redis://c", None, Missing("there is no valkey")),
        "other": Standing("other://d", None),
    }
    monkeypatch.setattr(kinds, "KINDS", standing)
    monkeypatch.setattr(kinds, "standing", standing.__getitem__)
    measured: list[tuple[str, str]] = []

    def rows(bench: Bench, plan: Plan, name: str, url: str) -> Iterator[Any]:
        measured.append((name, url))
        return iter(())

    monkeypatch.setattr(broker, "_rows", rows)
    with Bench(Path()) as bench, pytest.raises(BenchError, match="valkey: there is no valkey"):
        list(broker.run(bench, Plan()))
    assert [("redis", "redis://a"), ("nats", "nats://b")] == measured
    assert [["start", "stop"], ["start"], ["start"], []] == [each.calls for each in standing.values()]


def test_each_kind_is_a_broker() -> None:
    """Each row of the table is of a broker that a server can be given."""
    assert set(KINDS) <= set(BUILDERS)
