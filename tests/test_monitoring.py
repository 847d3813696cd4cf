"""What is in deploy/ for those who watch a server: the rules and alerts for Prometheus, and the dashboard for Grafana.

Debian's `promtool` lets each alert fire by its fault, in `FAULTS`, and none in health. A real Prometheus scrapes a real
server, and answers each expression of the dashboard. To add an alert, add its fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.processes import free_port
from oncecast.errors import ERRORS
from oncecast.message import Reason
from oncecast.server.exposition import render
from oncecast.server.measures import Measures
from oncecast.server.metrics import LABELLED
from oncecast.server.server import Server
from oncecast.server.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "oncecast.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "oncecast.json"
NODE = '{job="oncecast",instance="node1"}'
MINUTES = 60  # of each series
SECONDS = 60.0  # for a Prometheus to start and to scrape: the machine is shared

# Series of a node that is well, as promtool writes them: the first value, and what each minute adds.
HEALTH = {
    f"up{NODE}": "1x60",
    f"oncecast_ready{NODE}": "2x60",
    f"oncecast_workers{NODE}": "2x60",
    f"oncecast_workers_silent{NODE}": "0x60",
    f"oncecast_worker_restarts_total{NODE}": "1x60",
    f"oncecast_broker_silent_seconds{NODE}": "1x60",
    f"oncecast_broker_holes_total{NODE}": "3x60",
    f"oncecast_broker_lag{NODE}": "20x60",
    f"oncecast_connections{NODE}": "800x60",
    f"oncecast_connections_limit{NODE}": "1000x60",
    f"oncecast_connections_turned_away_total{NODE}": "7x60",
    f"oncecast_tls_certificate_expires_seconds{NODE}": f"{30 * 86400}x60",
    f"oncecast_tls_renewals_refused_total{NODE}": "1x60",
    f"oncecast_issuer_fetches_total{NODE}": "0+1x60",
    f"oncecast_issuer_failures_total{NODE}": "0+1x60",
    f"oncecast_log_lines_dropped_total{NODE}": "9x60",
}


def labelled(name: str, **labels: str) -> str:
    """Return a series of the node with more labels."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f'oncecast_{name}{{job="oncecast",instance="node1"{more}}}'


def histogram(name: str, values: str, *, above: bool) -> dict[str, str]:
    """Return the buckets of a histogram whose values are all below 1 ms, or all between 2.5 and 5 s where `above`."""
    low = "0x60" if above else values
    return {labelled(f"{name}_bucket", le=le): low for le in ("0.001", "1", "2.5")} | {
        labelled(f"{name}_bucket", le=le): values for le in ("5", "+Inf")
    }


DELAYS = ("publish_ack_seconds", "publish_write_seconds", "delivery_age_seconds", "loop_late_seconds")
for name in DELAYS:
    HEALTH |= histogram(name, "0+600x60", above=False)
HEALTH |= {
    labelled("refusals_total", transport="publish", code="unavailable"): "0+1x60",
    labelled("refusals_total", transport="sse", code="forbidden"): "0+600x60",  # a client's own fault
    labelled("gaps_total", reason="expired"): "0+1x60",
    labelled("gaps_total", reason="epoch"): "0+600x60",
}

# By alert, the series that differ. The fault lasts the whole hour, or begins where its counter jumps.
FAULTS: dict[str, dict[str, str]] = {
    "OncecastDown": {f"up{NODE}": "0x60"},
    "OncecastNotReady": {f"oncecast_ready{NODE}": "1x60"},
    "OncecastBrokerSilent": {f"oncecast_broker_silent_seconds{NODE}": "11+60x60"},
    "OncecastMessagesMayBeLost": {f"oncecast_broker_holes_total{NODE}": "0x55 1x5"},
    "OncecastBrokerLag": {f"oncecast_broker_lag{NODE}": "1001x60"},
    "OncecastSlowAcknowledgements": histogram("publish_ack_seconds", "0+600x60", above=True),
    "OncecastSlowDelivery": histogram("delivery_age_seconds", "0+600x60", above=True),
    "OncecastLoopLate": histogram("loop_late_seconds", "0+600x60", above=True),
    "OncecastNearlyFull": {f"oncecast_connections{NODE}": "950x60"},
    "OncecastTurnsAway": {f"oncecast_connections_turned_away_total{NODE}": "0x57 9x3"},
    "OncecastErrors": {labelled("refusals_total", transport="publish", code="unavailable"): "0+60x60"},
    "OncecastGaps": {labelled("gaps_total", reason="slow"): "0+90x60"},
    "OncecastWorkersRestart": {f"oncecast_worker_restarts_total{NODE}": "0x50 4x10"},
    "OncecastWorkerSilent": {f"oncecast_workers_silent{NODE}": "1x60"},
    "OncecastCertificateEnds": {f"oncecast_tls_certificate_expires_seconds{NODE}": f"{13 * 86400}x60"},
    "OncecastRenewalRefused": {f"oncecast_tls_renewals_refused_total{NODE}": "0x40 1x20"},
    "OncecastIssuerFails": {f"oncecast_issuer_fetches_total{NODE}": "1x60"},
    "OncecastLogLinesDropped": {f"oncecast_log_lines_dropped_total{NODE}": "0x55 9x5"},
}


@cache
def rules(kind: str) -> dict[str, dict[str, Any]]:
    """The rules of a kind, `alert` or `record`, by name."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that show something."""
    found = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def shown() -> Iterator[str]:
    """Each expression of the dashboard."""
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"]


def expressions() -> Iterator[str]:
    """Each expression of the rules and the dashboard."""
    for kind in ("alert", "record"):
        yield from (rule["expr"] for rule in rules(kind).values())
    yield from shown()


def promtool(*arguments: str) -> str:
    """Run promtool, which finds no fault, and return what it says."""
    program = shutil.which("promtool")
    assert program is not None, "scripts/system-packages installs it"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=SECONDS)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def run_case(tmp_path: Path, *cases: tuple[set[str], dict[str, str], tuple[int, ...]]) -> None:
    """Let promtool check which alerts fire, and no other, with these series at these minutes of the hour."""
    made = [
        {
            "name": " ".join(alerts) or "health",
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in alerts],
                }
                for minute in minutes
            ],
        }
        for alerts, series, minutes in cases
    ]
    shutil.copy(RULES, tmp_path)
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [RULES.name], "evaluation_interval": "1m", "tests": made}), "utf-8")
    promtool("test", "rules", str(file))


def test_prometheus_takes_the_files(tmp_path: Path) -> None:
    """The configuration and the rules are what Prometheus takes."""
    promtool("check", "config", str(DEPLOY / "prometheus" / "prometheus.yml"))
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_each_alert_fires_on_its_fault(tmp_path: Path) -> None:
    """Each alert has a fault here, and fires on it; no other does, so that whoever is woken sees what it is."""
    assert set(FAULTS) == set(rules("alert"))
    run_case(tmp_path, *(({alert}, HEALTH | fault, (MINUTES - 1,)) for alert, fault in FAULTS.items()))


def test_no_alert_fires_in_health(tmp_path: Path) -> None:
    """A server that is well, with the restarts, refusals and gaps of an ordinary hour, wakes nobody."""
    run_case(tmp_path, (set(), HEALTH, (1, 20, 40, MINUTES - 1)))


def test_the_check_of_alerts_can_fail(tmp_path: Path) -> None:
    """An alert that does not fire is reported."""
    with pytest.raises(AssertionError, match="OncecastDown"):
        run_case(tmp_path, ({"OncecastDown"}, HEALTH, (MINUTES - 1,)))


def test_each_alert_says_what_to_do() -> None:
    """Summary and description are sentences, and the severity is one of two."""
    for name, rule in rules("alert").items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert {"summary", "description"} == set(rule["annotations"]), name
        assert all(text.endswith(".") for text in rule["annotations"].values()), name


def test_every_metric_that_is_named_is_one_of_the_server() -> None:
    """Rules and dashboard name metrics, labels and their values that a server has."""
    families = list(text_string_to_metric_families(render(Measures()).decode()))
    there = {f"{f.name}_total" if f.type == "counter" else f.name for f in families}
    there |= {f"{f.name}_{part}" for f in families if f.type == "histogram" for part in ("bucket", "sum", "count")}
    labels = {"job", "instance", "le"} | {label for each in LABELLED for label in each.labels}
    for expr in expressions():
        assert set(re.findall(r"\boncecast_[a-z_0-9]+", expr)) <= there, expr
        assert set(re.findall(r"\boncecast:[a-z_0-9:]+", expr)) <= set(rules("record")), expr
        assert {name for by in re.findall(r"by \(([^)]*)\)", expr) for name in by.split(", ")} <= labels, expr
        for name, values in re.findall(r'\b(code|reason)=~?"([^"]*)"', expr):
            assert set(values.split("|")) <= (set(ERRORS) if name == "code" else set(Reason)), expr


def test_the_panels_of_the_dashboard() -> None:
    """Each has a number, a title and a place of its own, and the source that the viewer chooses."""
    found = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len(found) == len({panel["id"] for panel in found}) == len({panel["title"] for panel in found})
    taken = [
        (x, y)
        for panel in found
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24
    assert {"${datasource}"} == {panel["datasource"]["uid"] for panel in panels()}


# A real Prometheus -----------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A server that serves."""
    made = Server(Settings(port=0, public=True))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def prometheus(server: Server, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Asks a Prometheus that scrapes the server each second, by the configuration in deploy/."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{server.port}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    shutil.copy(RULES, tmp_path)
    port = free_port()
    program = shutil.which("prometheus")
    assert program is not None, "scripts/system-packages installs it"
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS, trust_env=False) as client:
            await is_ready(client)
            yield client
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def is_ready(prometheus: httpx.AsyncClient) -> None:
    """Wait until it has started: before that it listens, and answers each query with 503."""
    async with asyncio.timeout(SECONDS):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await prometheus.get("/-/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.1)


async def ask(prometheus: httpx.AsyncClient, expr: str) -> list[dict[str, Any]]:
    """Return what an expression finds now."""
    answer = (await prometheus.get("/api/v1/query", params={"query": expr})).json()
    assert "success" == answer["status"], f"{expr}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


async def until(prometheus: httpx.AsyncClient, expr: str) -> list[dict[str, Any]]:
    """Ask until an expression finds something."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if found := await ask(prometheus, expr):
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{expr} finds nothing")


async def test_a_real_prometheus_scrapes_a_real_server(server: Server, prometheus: httpx.AsyncClient) -> None:
    """It finds the figures of what was done, the recorded ones too; each expression finds something; nothing fires."""
    ours = f"http://127.0.0.1:{server.port}/v1/channels/a"
    async with (
        httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client,
        client.stream("GET", ours, headers={"Accept": "text/event-stream"}) as stream,
    ):
        assert 200 == stream.status_code
        assert 400 == (await client.get(ours, params={"after": "nonsense"})).status_code
        await until(prometheus, "oncecast_ready")

        async def work() -> None:
            while True:
                assert 201 == (await client.post(ours, content=b"1")).status_code
                await asyncio.sleep(0.05)

        working = asyncio.create_task(work())
        try:
            for expr in shown():
                asked = expr.replace("$__rate_interval", "10s").replace("$job", "oncecast").replace("$instance", ".*")
                await until(prometheus, asked)
            for record in rules("record"):
                await until(prometheus, record)
        finally:
            working.cancel()
            await asyncio.wait({working})
        (listeners,) = await ask(prometheus, 'oncecast_listeners{transport="sse"}')
        assert "1" == listeners["value"][1]
        (refused,) = await ask(prometheus, "oncecast_refusals_total")
        assert ("cursor_invalid", "short-poll") == (refused["metric"]["code"], refused["metric"]["transport"])
        (published,) = await ask(prometheus, "oncecast_publishes_total > 0")
        assert "oncecast" == published["metric"]["job"]
        assert [] == await ask(prometheus, 'ALERTS{alertstate="firing"}')
