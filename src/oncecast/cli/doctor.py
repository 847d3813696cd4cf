"""`oncecast doctor URL`: what is wrong between here and a server, and how to mend it in the proxy's own words."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator

import click

from ..client.credentials import GetToken
from ..client.dialing import Endpoint, speaks_tls
from ..client.failures import Refused, Unreachable
from ..client.url import ServerUrl
from ..doctor.cures import PROXIES
from ..doctor.examination import Diagnosis, Orders, examine
from ..doctor.findings import Finding, Judgement
from ..doctor.probes import Examinee
from ..errors import UsageError
from ..message import check_channel
from ..policy.authority import parse_origin
from .base import FAILED, MISUSED, Failure, escaped, in_one_line, put, say, token_of

__all__ = ["doctor"]

CHANNEL = "doctor"
NAME_WIDTH = 14
MARK_WIDTH = 7
LEAST_WIDTH, MOST_WIDTH = 60, 110  # columns
MARKS = {
    Judgement.WELL: ("ok", "green"),
    Judgement.WRONG: ("WRONG", "red"),
    Judgement.UNKNOWN: ("?", "yellow"),
}


@click.command(short_help="Find what is wrong between here and a server, such as in a proxy.")
@click.argument("url", metavar="URL")
@click.option(
    "--channel",
    metavar="NAME",
    help="Publish a few messages to this channel, so that events are timed and every node is asked for one. Without "
    f"it nothing is published, and the channel {CHANNEL} is read.",
)
@click.option("--origin", metavar="ORIGIN", help="An origin whose pages are to connect, as in https://app.example.com.")
@click.option(
    "--proxy", type=click.Choice(list(PROXIES)), help="The proxy in front, where its headers do not say it: name it."
)
@click.option(
    "--quiet-seconds",
    type=click.FloatRange(0, 3600),
    metavar="S",
    help="Seconds for which connections are held on which nothing is said; 0 leaves that out.  [default: a little more "
    "than the server's heartbeat, mostly 18.75]",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: a name, a verdict, a text and a cure for each check."
)
def doctor(
    url: str, channel: str | None, origin: str | None, proxy: str | None, quiet_seconds: float | None, as_json: bool
) -> None:
    """Find what is wrong between here and a server, and say how to mend it in the words of the proxy.

    It asks from outside, as a client does, and changes nothing; only with --channel does it publish, to that channel.
    A token or key in ONCECAST_TOKEN is sent, and judged.

    Exits with 0 where all is well, with 1 where something is wrong, and with 2 where nothing answers at the URL or the
    call is wrong; so a deployment can end with it. What could not be looked at is marked with ? and is no fault.

    \b
    Examples:
      oncecast doctor https://rt.example.com
      oncecast doctor https://rt.example.com --channel health --origin https://app.example.com
      oncecast doctor http://10.0.0.7:8080/live --proxy haproxy --quiet-seconds 70
      oncecast doctor https://rt.example.com --json | jq '.findings[] | select(.verdict == "wrong")'
    """
    with in_one_line():
        server = ServerUrl.parse(url)
        check_channel(channel or CHANNEL)
    if origin is not None and parse_origin(origin) is None:
        raise Failure("--origin: write an origin as in https://app.example.com", MISUSED)
    token = token_of()
    orders = Orders(origin, channel is not None, quiet_seconds, proxy, token is not None)
    diagnosis = asyncio.run(_examined(server, token, channel or CHANNEL, orders))
    if as_json:
        put(json.dumps(_fields(server, diagnosis)))
    else:
        for line in _shown(server, diagnosis):
            put(line)
    if diagnosis.wrong:
        sys.exit(FAILED)


async def _examined(server: ServerUrl, token: GetToken | None, channel: str, orders: Orders) -> Diagnosis:
    headers = () if token is None else (("Authorization", f"Bearer {token()}"),)
    endpoint = Endpoint(server, headers)
    try:
        diagnosis = await examine(
            Examinee(endpoint, channel), orders, say if sys.stderr.isatty() else lambda line: None
        )
    except (Unreachable, Refused, UsageError) as error:
        raise Failure(str(error), MISUSED) from None
    if diagnosis.findings[0].verdict is Judgement.WRONG and await speaks_tls(endpoint):
        raise Failure(f"{server} speaks TLS: begin the URL with https://", MISUSED)
    return diagnosis


def _fields(server: ServerUrl, diagnosis: Diagnosis) -> dict[str, object]:
    return {
        "url": str(server),
        "proxy": diagnosis.proxy,
        "wrong": len(diagnosis.wrong),
        "findings": [
            {"check": each.check, "verdict": each.verdict.value, "text": each.text, "cure": each.cure}
            for each in diagnosis.findings
        ],
    }


def _shown(server: ServerUrl, diagnosis: Diagnosis) -> Iterator[str]:
    """Yield the lines for a terminal."""
    width = min(MOST_WIDTH, max(LEAST_WIDTH, shutil.get_terminal_size().columns))
    behind = f"behind {diagnosis.proxy}" if diagnosis.proxy else "no proxy is known by its headers; see --proxy"
    yield f"{click.style(str(server), bold=True)}  ({behind})"
    yield ""
    for finding in diagnosis.findings:
        yield from _lines(finding, width, diagnosis.proxy)
    yield ""
    checks, wrong = len(diagnosis.findings), len(diagnosis.wrong)
    unseen = sum(each.verdict is Judgement.UNKNOWN for each in diagnosis.findings)
    said = (
        f"{wrong} of {checks} checks found something wrong"
        if wrong
        else f"Nothing is wrong in {checks - unseen} checks"
    )
    yield click.style(said + (f"; {unseen} could not be made." if unseen else "."), bold=True)


def _lines(finding: Finding, width: int, proxy: str | None) -> Iterator[str]:
    mark, color = MARKS[finding.verdict]
    indent = " " * (2 + MARK_WIDTH + NAME_WIDTH)
    first, *rest = textwrap.wrap(escaped(finding.text), width - len(indent)) or [""]
    yield f"  {click.style(f'{mark:<{MARK_WIDTH}}', fg=color)}{finding.check:<{NAME_WIDTH}}{first}"
    for line in rest:
        yield indent + line
    if finding.cure:
        for line in textwrap.wrap(f"→ {finding.cure}", width - len(indent), subsequent_indent="  "):
            yield indent + click.style(line, fg="cyan")
