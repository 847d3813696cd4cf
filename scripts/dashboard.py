"""The Grafana dashboard `deploy/grafana/oncecast.json`, made from the table of its panels.

`scripts/reference.py` writes it. To add a panel, add it to `ROWS`; `tests/test_monitoring.py` asks a real
Prometheus each expression.
"""

from __future__ import annotations

import json
from itertools import count
from typing import Any

__all__ = ["ROWS", "dashboard"]

HERE = '{job="$job",instance=~"$instance"}'
RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 8, 7  # of a panel, on a grid of 24 columns


def rate(name: str, by: str = "") -> str:
    """Return the rate of a counter, of all nodes together or by a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({name}{HERE}{RATE}))"


def quantiles(name: str) -> list[tuple[str, str]]:
    """Return the expressions of a delay's median and its 99th percentile."""
    found = f"sum by (le) (rate({name}_bucket{HERE}{RATE}))"
    return [(f"histogram_quantile({part}, {found})", f"p{part * 100:g}") for part in (0.5, 0.99)]


def each(name: str) -> list[tuple[str, str]]:
    """Return a gauge, by node."""
    return [(f"{name}{HERE}", "{{instance}}")]


# The row's title, and its panels: title, unit of Grafana, expressions and legends.
ROWS: list[tuple[str, list[tuple[str, str, list[tuple[str, str]]]]]] = [
    (
        "Listeners and messages",
        [
            ("Listeners by transport", "short", [(f"sum by (transport) (oncecast_listeners{HERE})", "{{transport}}")]),
            ("New listens by transport", "reqps", [(rate("oncecast_listens_total", "transport"), "{{transport}}")]),
            (
                "Connections, and how many may be",
                "short",
                [(f"sum (oncecast_connections{HERE})", "open"), (f"sum (oncecast_connections_limit{HERE})", "limit")],
            ),
            (
                "Messages",
                "reqps",
                [(rate("oncecast_publishes_total"), "published"), (rate("oncecast_messages_total"), "received")],
            ),
            ("Deliveries to streams and sockets", "reqps", [(rate("oncecast_deliveries_total"), "deliveries")]),
            ("Subscriptions", "short", [(f"sum (oncecast_subscriptions{HERE})", "subscriptions")]),
        ],
    ),
    (
        "Delay",
        [
            ("Publish to acknowledgement", "s", quantiles("oncecast_publish_ack_seconds")),
            ("Publish to write", "s", quantiles("oncecast_publish_write_seconds")),
            ("Age of messages at the write", "s", quantiles("oncecast_delivery_age_seconds")),
        ],
    ),
    (
        "Listeners that are behind",
        [
            (
                "Behind",
                "short",
                [
                    (f"sum (oncecast_subscriptions_catching_up{HERE})", "catching up"),
                    (f"sum (oncecast_subscriptions_blocked{HERE})", "blocked"),
                ],
            ),
            ("Lag of the one furthest behind", "short", each("oncecast_subscription_lag")),
            ("Gaps by reason", "reqps", [(rate("oncecast_gaps_total", "reason"), "{{reason}}")]),
        ],
    ),
    (
        "Refusals",
        [
            ("Refusals by code", "reqps", [(rate("oncecast_refusals_total", "code"), "{{code}}")]),
            ("Refusals by transport", "reqps", [(rate("oncecast_refusals_total", "transport"), "{{transport}}")]),
            ("Refused by a limit", "reqps", [(rate("oncecast_limited_total", "limit"), "{{limit}}")]),
            ("Requests by status", "reqps", [(rate("oncecast_requests_total", "status"), "{{status}}")]),
            (
                "Turned away, credentials refused",
                "reqps",
                [
                    (rate("oncecast_connections_turned_away_total"), "turned away"),
                    (rate("oncecast_credentials_refused_total"), "credentials"),
                ],
            ),
            (
                "Unfinished requests",
                "bytes",
                [(f"sum (oncecast_unfinished_bytes{HERE})", "bytes")],
            ),
        ],
    ),
    (
        "Broker",
        [
            ("Lag behind the broker", "short", each("oncecast_broker_lag")),
            ("Seconds since the last probe", "s", each("oncecast_broker_silent_seconds")),
            (
                "Returns, holes, refused and foreign messages",
                "short",
                [
                    (f"sum (increase(oncecast_broker_{name}_total{HERE}{RATE}))", name)
                    for name in ("returns", "holes", "refused", "foreign")
                ],
            ),
            ("Publishes that wait", "short", each("oncecast_publishes_waiting")),
            ("Pages of history", "reqps", [(rate("oncecast_broker_pages_total"), "pages")]),
            ("Messages held in memory", "short", each("oncecast_log_messages")),
        ],
    ),
    (
        "Processes",
        [
            (
                "Workers",
                "short",
                [
                    (f"sum (oncecast_workers{HERE})", "serving"),
                    (f"sum (oncecast_ready{HERE})", "ready"),
                    (f"sum (oncecast_workers_silent{HERE})", "silent"),
                ],
            ),
            ("CPU", "short", [(f"rate(oncecast_cpu_seconds_total{HERE}{RATE})", "{{instance}}")]),
            ("Memory", "bytes", each("oncecast_memory_bytes")),
            ("Lateness of the event loop", "s", quantiles("oncecast_loop_late_seconds")),
            ("Bytes of the log in memory", "bytes", each("oncecast_log_bytes")),
            (
                "Restarts and dropped lines",
                "short",
                [
                    (f"sum (increase(oncecast_worker_restarts_total{HERE}{RATE}))", "restarts"),
                    (f"sum (increase(oncecast_log_lines_dropped_total{HERE}{RATE}))", "lines"),
                ],
            ),
        ],
    ),
]


def dashboard() -> str:
    """Return the dashboard's JSON, as Grafana 9 and later import it."""
    ids = count(1)
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        grid = {"x": 0, "y": y, "w": 24, "h": 1}
        panels.append(
            {"id": next(ids), "type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []}
        )
        y += 1
        for place, (name, unit, targets) in enumerate(row):
            grid = {"x": place % 3 * WIDTH, "y": y + place // 3 * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(next(ids), name, unit, targets, grid))
        y += (len(row) + 2) // 3 * HEIGHT
    found = {
        "uid": "oncecast",
        "title": "Oncecast",
        "tags": ["oncecast"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "templating": {
            "list": [
                {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                _variable("job", "label_values(oncecast_ready, job)"),
                _variable("instance", 'label_values(oncecast_ready{job="$job"}, instance)', several=True),
            ]
        },
        "panels": panels,
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _panel(number: int, title: str, unit: str, targets: list[tuple[str, str]], grid: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": grid,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for place, (expr, legend) in enumerate(targets)
        ],
    }


def _variable(name: str, query: str, *, several: bool = False) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": ["All"], "value": ["$__all"]} if several else {},
    }
