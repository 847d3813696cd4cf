"""`oncecast bench`: measure this machine, each figure beside its floor, and print a row as soon as it is known."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import cast

import click

from .base import FAILED, MISUSED, Failure, escaped, put

__all__ = ["bench"]

NAMES = (
    "fanout",
    "burst",
    "deflate",
    "idle",
    "latency",
    "poll",
    "publish",
    "guarded",
    "stalled",
    "scale",
    "storm",
    "durable",
    "asgi",
    "broker",
)
TERMINATED = 128 + signal.SIGTERM  # as a shell says it


@click.command(short_help="Measure the server, beside a floor that no server can beat.")
@click.argument("name", type=click.Choice([*NAMES, "all"]), default="all", metavar="[NAME]")
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--transport", type=click.Choice(["websocket", "sse"]), help="One transport, where there are several.")
@click.option(
    "--subscribers",
    type=click.IntRange(1, 50_000),
    metavar="N",
    help="The number of subscribers; each benchmark has its own by default.",
)
@click.option("--tls", is_flag=True, help="With TLS too, beside without: fanout and idle.")
@click.option("--quick", is_flag=True, help="Fewer rounds: to try it out. The figures are not reliable.")
@click.option("--json", "as_json", is_flag=True, help="Print the machine and the rows as JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a table for a page of the docs.")
def bench(
    name: str,
    urls: tuple[str, ...],
    transport: str | None,
    subscribers: int | None,
    tls: bool,
    quick: bool,
    as_json: bool,
    as_markdown: bool,
) -> None:
    """Measure one benchmark, or all: fanout, burst, deflate, idle, latency, poll, publish, guarded, stalled, scale,
    storm, durable, asgi, broker.

    The server and its floor (a loop in C over send(), or nginx) are measured alternately on one core; the load has
    another. Quote the ratio: it depends little on the machine. Needs Linux and a C compiler. A full run takes about
    twenty minutes; run nothing else meanwhile.

    URL is for the benchmark broker: the brokers to measure, as `serve --broker` takes them. Without one it measures the
    servers that scripts/brokers starts. It uses a log of its own on each server, and deletes it.

    \b
    Examples:
      oncecast bench fanout
      oncecast bench fanout --tls
      oncecast bench asgi --subscribers 500
      oncecast bench all --quick
      oncecast bench idle --transport sse --json
      oncecast bench broker redis://127.0.0.1:6379/0
    """
    if urls and name != "broker":
        raise Failure(f"{name} takes no URL: only the benchmark broker does", MISUSED)
    if not sys.platform.startswith("linux"):
        raise Failure("oncecast bench reads CPU time from Linux's /proc: run it there", FAILED)
    try:  # here, so that the other commands start without it
        from benchmarks import catalogue, report
        from benchmarks.base import BenchError, Plan, Transport
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "benchmarks":
            raise Failure(f"the benchmarks need another package: {error}; run `make .make/dev`", FAILED) from None
        raise Failure(
            "the benchmarks are not in an installed package: clone the repository, and run .venv/bin/oncecast bench "
            "there",
            FAILED,
        ) from None

    plan = Plan(subscribers=subscribers, transport=cast("Transport | None", transport), quick=quick, urls=urls, tls=tls)
    as_table = not (as_json or as_markdown)
    rows, missing = [], 0
    if as_table:
        put(report.heading())
    with _cleaning_up():
        for each in NAMES if name == "all" else (name,):
            try:
                for row in catalogue.run(each, plan):
                    rows.append(row)
                    if as_table:
                        put(report.as_line(row))
            except BenchError as error:  # the others can still be run
                missing += 1
                click.echo(f"{each}: {escaped(str(error))}", err=True)
    if as_json:
        put(report.as_json(rows))
    if as_markdown:
        put(report.as_markdown(rows))
    if missing:
        sys.exit(FAILED)


@contextlib.contextmanager
def _cleaning_up() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, with the processes that it has started."""

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
