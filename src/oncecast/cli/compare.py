"""`oncecast compare`: the four transports side by side, in figures from this machine and this network."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from ..client.credentials import Credentials
from ..client.dialing import Endpoint, speaks_tls
from ..client.failures import Broken, Refused, Unreachable
from ..client.url import ProxyUrl, ServerUrl
from ..compare.grounds import CompareGround, ForeignServer, OwnServers
from ..compare.markdown import render_markdown
from ..compare.measurement import Measurement
from ..compare.picture import render_picture
from ..compare.plan import BOUNDS, ComparePlan
from ..compare.publishing import OnProgress
from ..compare.report import ORDER, ComparisonReport, LaneMarks
from ..compare.schedule import SCHEDULES
from ..compare.table import render_table
from ..errors import UsageError
from .base import FAILED, Failure, escaped, in_one_line, put, token_of

__all__ = ["compare", "printable"]

NO_TERMINAL = 80  # columns where the output is none
BAR = 30
INTERRUPTED_RUN = "interrupted"


def _within(name: str, text: str) -> str:
    least, most, _ = BOUNDS[name]
    return f"{text}, {least:g} to {most:g}."


@click.command(short_help="Compare the four transports: delays, requests, bytes, CPU time.")
@click.argument("url", required=False, metavar="[URL]")
@click.option(
    "--schedule",
    type=click.Choice(list(SCHEDULES)),
    default="chat",
    show_default=True,
    metavar="NAME",
    help="What is published: " + "; ".join(f"{each.name}, {each.text}" for each in SCHEDULES.values()) + ".",
)
@click.option("--rate", type=float, metavar="N", help=_within("rate", "Messages a second, in place of the schedule's"))
@click.option("--size", type=int, metavar="N", help=_within("size", "Bytes of a message's data"))
@click.option(
    "--listeners", type=int, default=5, show_default=True, metavar="N", help=_within("listeners", "On each transport")
)
@click.option(
    "--seconds",
    type=float,
    default=20,
    show_default=True,
    metavar="S",
    help=_within("seconds", "Seconds to publish for"),
)
@click.option(
    "--poll-interval",
    type=float,
    default=1,
    show_default=True,
    metavar="S",
    help=_within("poll-interval", "Seconds between two short polls"),
)
@click.option(
    "--rtt",
    type=float,
    default=0,
    metavar="MS",
    help=_within("rtt", "Milliseconds to add to each round trip of a listener, as a distance does"),
)
@click.option("--through", metavar="URL", help="An HTTP proxy that opens tunnels (CONNECT): all connections use it.")
@click.option("--channel", metavar="NAME", help="The channel to use.  [default: a new one, compare-…]")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print a table for a page.")
@click.option(
    "--svg",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a picture of the delays over time, a lane for each transport.",
)
def compare(
    url: str | None,
    schedule: str,
    rate: float | None,
    size: int | None,
    listeners: int,
    seconds: float,
    poll_interval: float,
    rtt: float,
    through: str | None,
    channel: str | None,
    as_json: bool,
    as_markdown: bool,
    svg: Path | None,
) -> None:
    """Publish by one schedule to listeners on all four transports at once, and compare what each costs.

    Without a URL it starts servers of its own: one for each transport, so that each has its own CPU time, and one
    without listeners, whose CPU time is subtracted. With the URL of a server, or of a proxy in front of one, that is
    measured; a token or key in ONCECAST_TOKEN is sent.

    Bytes are counted on the connections, both ways, with heads, TLS and frames. A delay is the time from the call
    that publishes to the message in the listener's hands, by one clock. A transport that does not get through says
    why, and the others go on. Ctrl-C ends it with the figures so far.

    \b
    Examples:
      oncecast compare
      oncecast compare --schedule ticker --rtt 100
      oncecast compare https://rt.example --through http://proxy.example:3128
      oncecast compare --rate 5 --size 1000 --poll-interval 3 --markdown
      oncecast compare --schedule quiet --seconds 60 --svg delays.svg
    """
    with in_one_line():
        if as_json and as_markdown:
            raise UsageError("give --json or --markdown, not both")
        plan = ComparePlan(
            schedule=schedule,
            rate=rate,
            size=size,
            listeners=listeners,
            seconds=seconds,
            poll_interval=poll_interval,
            rtt_ms=rtt,
        )
        server = None if url is None else ServerUrl.parse(url)
        if through is not None:
            ProxyUrl.parse(through)
        run = _Run(plan, server, through, channel)
        report = printable(_on_a_loop(run.measure()))
    if svg is not None:
        try:
            svg.write_text(render_picture(report, run.marks), "utf-8")
        except OSError as error:
            raise Failure(f"{svg} can't be written: {error.strerror or error}", FAILED) from None
    if as_json:
        put(msgspec.json.format(msgspec.json.encode(report), indent=2))
    elif as_markdown:
        put(render_markdown(report))
    else:
        columns = shutil.get_terminal_size((NO_TERMINAL, 24)).columns
        put(_uncoloured(render_table(report, run.marks, width=columns, unicode=_writes_unicode())))
    if report.ended != INTERRUPTED_RUN and (report.ended or report.verdict.transport is None):
        sys.exit(FAILED)


def _on_a_loop(main: Coroutine[Any, Any, ComparisonReport]) -> ComparisonReport:
    """Run a coroutine on the fastest loop there is: its work is a part of each delay."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


def printable(report: ComparisonReport) -> ComparisonReport:
    """Return the report without control characters: it has what the server said in its refusals."""

    def shown(value: Any) -> Any:
        match value:
            case str():
                return escaped(value)
            case dict():
                return {name: shown(each) for name, each in value.items()}
            case list():
                return [shown(each) for each in value]
        return value

    return msgspec.convert(shown(msgspec.to_builtins(report)), ComparisonReport)


class _Run:
    """One comparison. `marks` are known once it is measured."""

    def __init__(self, plan: ComparePlan, server: ServerUrl | None, through: str | None, channel: str | None) -> None:
        self._plan = plan
        self._server = server
        self._through = through
        self._channel = channel
        self._get_token = token_of()
        self.marks: Mapping[str, LaneMarks] = {}

    async def measure(self) -> ComparisonReport:
        """Measure, and return the report. Raises `Broken` or `Refused` where nothing can be compared."""
        if self._server is None:
            async with OwnServers(ORDER) as own:
                return await self._on(own)
        proxy = None if self._through is None else ProxyUrl.parse(self._through)
        try:
            return await self._on(ForeignServer(self._server, credentials=Credentials(self._get_token), proxy=proxy))
        except Unreachable as error:
            if str(error).endswith("connection refused"):
                raise Failure(
                    f"{error}: start a server there, or leave the URL out to compare on servers that are "
                    "started for it",
                    FAILED,
                ) from None
            raise
        except Broken:
            if await speaks_tls(Endpoint(self._server)):
                raise Failure(f"{self._server} speaks TLS: begin the URL with https://", FAILED) from None
            raise
        except Refused as error:
            if error.code == "unauthorized" and self._get_token is None:
                raise Failure(f"{str(error).rstrip('.')}: set ONCECAST_TOKEN to a token or key", FAILED) from None
            raise

    async def _on(self, ground: CompareGround) -> ComparisonReport:
        own = isinstance(ground, OwnServers)
        with _progress() as show:
            measurement = Measurement(
                self._plan,
                ground,
                channel=self._channel,
                get_token=None if own else self._get_token,
                through=self._through,
                on_progress=show,
            )
            with _stopped_by_signals(measurement):
                report = await measurement.run()
        self.marks = measurement.marks()
        return report


@contextlib.contextmanager
def _stopped_by_signals(measurement: Measurement) -> Iterator[None]:
    """Let a first Ctrl-C or SIGTERM end the measurement with what it has; a second one ends the command."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        measurement.stop(INTERRUPTED_RUN)
        restore()

    def restore() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            restore()


@contextlib.contextmanager
def _progress() -> Iterator[OnProgress]:
    """Give what draws a bar on standard error, where that is a terminal, and takes it off at the end."""
    if not sys.stderr.isatty():
        yield lambda _done, _what: None
        return
    full, empty = ("█", "░") if _writes_unicode() else ("#", ".")

    def show(done: float, what: str) -> None:
        filled = round(done * BAR)
        _to_terminal(f"\r{full * filled}{empty * (BAR - filled)} {done:4.0%} {what:<10}")

    try:
        yield show
    finally:
        _to_terminal("\r\x1b[2K")


def _to_terminal(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _writes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _uncoloured(text: str) -> str:
    """Return the text without colours where the user wants none (no-color.org); for a pipe `put` removes them."""
    return click.unstyle(text) if os.environ.get("NO_COLOR") else text
