"""Write the reference pages, and the tables in other pages, from the declarations in the code.

Usage: scripts/reference.py [--check]

It owns the generated pages of `docs/reference/`, and in other files the text between `<!-- begin NAME -->` and
`<!-- end NAME -->`. With `--check` nothing is written: it names the stale files, and exits with 1. To add a page or a
table, add it to `pages` or `parts`.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
import msgspec
import yaml
from prometheus_client.parser import text_string_to_metric_families

from oncecast.cli.base import EXIT_CODES
from oncecast.cli.commands import commands
from oncecast.core import subscription
from oncecast.doctor.cures import CURES
from oncecast.doctor.findings import CHECKS
from oncecast.errors import ERRORS, Refusal
from oncecast.protocol import duplex, polls
from oncecast.server import phases
from oncecast.server.config.setting import merged_meta
from oncecast.server.exposition import render
from oncecast.server.framing import websocket
from oncecast.server.measures import measure
from oncecast.server.process import child
from oncecast.server.server import Server
from oncecast.server.settings import (
    DEFAULT_BROKER,
    MEMORY,
    AuthSettings,
    ChannelRule,
    Limits,
    RetentionSettings,
    Settings,
)
from oncecast.wire import ws_connection
from scripts.dashboard import dashboard

ROOT = Path(__file__).parent.parent
NOTICE = "<!-- Made by scripts/reference.py from {}: edit that, and run the script. -->\n\n"

Row = tuple[str, ...]


def pages() -> dict[str, str]:
    """Return each generated page, by its path."""
    return {
        "docs/reference/settings.md": settings_page(),
        "docs/reference/errors.md": errors_page(),
        "docs/reference/metrics.md": metrics_page(),
        "docs/reference/commands.md": commands_page(),
        "deploy/grafana/oncecast.json": dashboard(),
    }


def parts() -> dict[str, dict[str, str]]:
    """Return the generated parts of other pages, by path and name."""
    return {
        "spec/wire.md": {"errors": errors_table()},
        "docs/how-to/doctor.md": {"checks": checks_table(), "cures": cures_table()},
        "docs/how-to/monitor.md": {"alerts": alerts_table()},
        "ARCHITECTURE.md": {
            "subscription": moves(subscription.MOVES),
            "connection": moves(phases.MOVES),
            "worker": moves(child.MOVES),
            "websocket": moves(ws_connection.MOVES),
            "carrier": moves(websocket.MOVES),
            "duplex": moves(duplex.MOVES),
            "poll": moves(polls.MOVES),
        },
    }


def checks_table() -> str:
    """Return what the doctor looks at, a row for each check."""
    rows = "".join(f"| `{name}` | {text} |\n" for name, text in CHECKS.items())
    return f"| check | what is well |\n| --- | --- |\n{rows}"


def cures_table() -> str:
    """Return the doctor's cures: by check, and by proxy."""
    rows = (
        f"| `{check}` | {proxy or 'any'} | {cure.replace('|', chr(92) + '|')} |\n"
        for check, cures in CURES.items()
        for proxy, cure in cures.items()
    )
    return f"| finding | proxy | cure |\n| --- | --- | --- |\n{''.join(rows)}"


def rendered() -> dict[str, str]:
    """Return the expected content of every file with a generated part, by path."""
    files = pages()
    for path, made in parts().items():
        text = (ROOT / path).read_text("utf-8")
        for name, part in made.items():
            begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            if not (found and closed):
                raise ValueError(f"{path} has no {begin.strip()} and {end}")
            text = before + begin + part + end + after
        files[path] = text
    return files


def stale() -> list[str]:
    """Return the paths of stale files."""
    return [
        path
        for path, text in rendered().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text("utf-8") != text
    ]


# Settings --------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Return the page of all settings."""
    text = "# Settings\n\n" + NOTICE.format("src/oncecast/server/settings.py")
    text += (
        "How to give them: [configure](../how-to/configure.md). Where a key has a flag of its own, `oncecast serve "
        "--help` shows it.\n"
    )
    for table, struct, heading in (
        ("", Settings, "Server"),
        ("limits", Limits, "`[limits]`"),
        ("retention", RetentionSettings, "`[retention]`"),
        ("auth", AuthSettings, "`[auth]`"),
        ("channels", ChannelRule, '`[channels."NAME"]` and `[channels."PREFIX*"]`'),
    ):
        text += f"\n## {heading}\n\n"
        if struct is ChannelRule:
            text += "What differs for some channels. What is left out is as in `[retention]`.\n\n"
        elif table:
            text += f"{(struct.__doc__ or '').strip()}\n\n"
        text += markdown(("key", "default", "allowed", "meaning", "variable"), setting_rows(table, struct))
    return text


def setting_rows(table: str, struct: type[msgspec.Struct]) -> list[Row]:
    """Return a row for each setting of a struct."""
    rows: list[Row] = []
    for info in msgspec.structs.fields(struct):
        if get_origin(info.type) is not Annotated:  # a table inside it
            continue
        base, *metas = get_args(info.type)
        meta = merged_meta(metas)
        default = "–" if info.default is None else f"`{json.dumps(info.default)}`"
        if info.name == "broker":  # the default of `Settings` is for use inside another program
            default = f"`{json.dumps(DEFAULT_BROKER)}`; with `dev`, `{json.dumps(MEMORY)}`"
        name = f"ONCECAST_{table.upper()}__{info.name.upper()}" if table else f"ONCECAST_{info.name.upper()}"
        variable = "–" if table == "channels" else f"`{name}`"  # a pattern can't stand in a variable's name
        rows.append((f"`{info.name}`", default, allowed(base, meta), meta.description or "", variable))
    return rows


def allowed(base: Any, meta: msgspec.Meta) -> str:
    """Say which values a setting may have."""
    kind = next(arg for arg in (*get_args(base), base) if arg is not type(None))
    if get_origin(kind) is Annotated:  # a number, or a word for one
        words = [word for arg in get_args(base) for word in get_args(arg) if isinstance(word, str)]
        number, *metas = get_args(kind)
        return allowed(number, merged_meta(metas)) + "".join(f", or `{word}`" for word in words)
    if get_origin(kind) is Literal:
        kind, base = get_args(kind)[0], kind
    if isinstance(kind, str):
        return ", ".join(f"`{choice}`" for choice in get_args(base))
    if get_origin(base) is tuple:
        return "a list of texts"
    if kind is bool:
        return "`true`, `false`"
    if kind is str:
        return "a text"
    return f"{meta.ge} to {meta.le}" + (", whole" if kind is int else "")


# Errors ----------------------------------------------------------------------------------------------------------


def errors_page() -> str:
    """Return the page of all errors."""
    return (
        "# Errors\n\n"
        + NOTICE.format("src/oncecast/errors.py")
        + "Where they appear, and in what form: [the wire, Errors](../../spec/wire.md#errors). A running server has\n"
        "this table at `/docs/errors`.\n\n" + errors_table()
    )


def errors_table() -> str:
    """Return the table of all errors."""
    return markdown(
        ("code", "HTTP", "close", "retry helps", "what to do"),
        [(f"`{e.code}`", str(e.status), str(e.close), "yes" if e.retry else "no", e.advice) for e in ERRORS.values()],
    )


# Commands --------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Return the page of all commands: usage, text, options and examples of each, and the exit codes."""
    text = "# Commands\n\n" + NOTICE.format("src/oncecast/cli/")
    text += "Results are on standard output, all else on standard error; an error is one line. Each command has\n"
    text += "`-h, --help`.\n\n## Exit codes\n\n"
    text += markdown(("code", "meaning"), [(str(code), meaning) for code, meaning in EXIT_CODES.items()])
    return text + "".join(_command(path, command) for path, command in _commands("oncecast", commands))


def _commands(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from _commands(f"{path} {name}", each)


def _command(path: str, command: click.Command) -> str:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text = f"\n## {path}\n\n```text\n{usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        words, kept, lines = paragraph.partition("\b\n")  # click's mark of lines that are not wrapped
        text += f"\n{words}" if words else ""
        if kept:
            title, _, examples = lines.partition("\n")
            text += f"\n{title}\n\n```sh\n{textwrap.dedent(examples)}\n```\n"
        else:
            text += "\n"
    records = [record for param in command.params if (record := param.get_help_record(context))]
    if not records:
        return text
    return text + "\n" + markdown(("option", "meaning"), [(f"`{names}`", " ".join(m.split())) for names, m in records])


# Metrics ---------------------------------------------------------------------------------------------------------


def metrics_page() -> str:
    """Return the page of all metrics, from what a server that has not started yet answers."""
    text = asyncio.run(_exposition())
    rows: list[Row] = [
        (
            f"`{family.name}_total`" if family.type == "counter" else f"`{family.name}`",
            family.type,
            ", ".join(f"`{label}`" for label in sorted({name for s in family.samples for name in s.labels} - {"le"}))
            or "–",
            family.documentation,
        )
        for family in text_string_to_metric_families(text)
    ]
    return (
        "# Metrics\n\n"
        + NOTICE.format("src/oncecast/server/metrics.py")
        + "`GET /metrics`, in Prometheus's text format, with the sums of all workers. Counters begin at 0 when the\n"
        "process starts. What to watch: [monitor](../how-to/monitor.md).\n\n"
        + markdown(("name", "type", "labels", "meaning"), rows)
    )


async def _exposition() -> str:
    app = Server(Settings(port=0)).app
    app.counters.requests[200] = 1  # so that these families show their labels
    app.refusals.unread(Refusal("timeout", ""))
    return render(measure(app)).decode()


def alerts_table() -> str:
    """Return the table of the alerts, from the rules for Prometheus."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/oncecast.rules.yml").read_text("utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    return markdown(
        ("alert", "severity", "fires when", "what to do"),
        [
            (
                f"`{rule['alert']}`",
                rule["labels"]["severity"],
                f"`{rule['expr']}`" + (f" for {rule['for']}" if "for" in rule else ""),
                rule["annotations"]["description"],
            )
            for rule in alerts
        ],
    )


# States ----------------------------------------------------------------------------------------------------------


def moves(table: Mapping[Any, Any]) -> str:
    """Draw a table of legal moves, a line for each state, in the order of its enum. It may name events or not."""
    width = max(len(state.name) for state in table)
    lines = [f"{state.name:<{width}} {_row(table[state])}" for state in table]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def _row(row: Any) -> str:
    if isinstance(row, Mapping) and row:
        return "| " + ", ".join(f"{event} → {state.name}" for event, state in row.items())
    return "→ " + _names(frozenset(row))


def _names(states: frozenset[enum.Enum]) -> str:
    order = list(type(next(iter(states)))) if states else []
    return ", ".join(state.name for state in order if state in states) or "(the end)"


# Helpers ---------------------------------------------------------------------------------------------------------


def markdown(head: Row, rows: list[Row]) -> str:
    """Return a table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Write what is stale, or with `--check` only name it; returns the exit status."""
    found = stale()
    for path in found:
        sys.stderr.write(f"{path} is stale\n" if arguments == ["--check"] else f"wrote {path}\n")
        if arguments != ["--check"]:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(rendered()[path], "utf-8")
    return int(bool(found) and arguments == ["--check"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
