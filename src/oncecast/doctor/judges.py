"""What observations mean: pure functions that return findings. Invariant: no judge asks the network or the time.

To add one, see the package's docstring; its tests need no server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

from ..errors import ERRORS
from .cures import REWRITTEN, cure_for
from .findings import Finding, unknown, well, wrong
from .observations import EventDelays, Handshake, HttpAnswer, Quiet, Reading, Streamed

__all__ = [
    "judge_clock",
    "judge_cors",
    "judge_delays",
    "judge_host",
    "judge_lost",
    "judge_one_log",
    "judge_quiet",
    "judge_ready",
    "judge_rewriting",
    "judge_server",
    "judge_stream",
    "judge_token",
    "judge_upgrade",
    "judge_version",
]

SKEW_SECONDS = 5.0  # a Date has whole seconds, and a token's leeway is small
LATE_SECONDS = 0.1  # half of what a proxy waits that delays small pieces; a network's own way is not counted
OLD_VERSION = "HTTP/1.0"
NAMED_ORIGIN = re.compile(r"Pages of (.+) may not connect here")  # as a server's refusal shows the origin that it saw


def judge_server(answer: HttpAnswer, proxy: str | None) -> Finding:
    """Judge whether Oncecast answers. `answer` is that of a plain GET of `/v1/connect`, which it refuses by a code."""
    if answer.code == "not_found":
        text = "Oncecast answers, but at another path: the proxy changes it"
        return wrong("server", text, cure_for("server", proxy))
    if answer.code in ERRORS:
        return well("server", "Oncecast answers")
    what = answer.trouble or f"the answer is {answer.status}, and not of Oncecast"
    return wrong("server", what, cure_for("server", proxy))


def judge_lost(reasons: Sequence[str], proxy: str | None) -> Finding:
    """Judge a server that has answered, and to which then no connection could be opened, for each of these reasons."""
    text = f"it answers, and later {len(reasons)} of the checks had no connection: {reasons[0]}"
    return wrong("server", text, cure_for("server", proxy))


def judge_host(
    answer: HttpAnswer, own: HttpAnswer, host: str, proxy: str | None, *, rewritten: bool = False
) -> Finding:
    """Judge the Host that the server gets. `own` is the answer to a request with the URL's own origin.

    `rewritten`: it was refused for another origin than was sent.
    """
    if "host_refused" in (answer.code, own.code):
        refused = answer if answer.code == "host_refused" else own
        return wrong(
            "host", f"the server refuses the host it is asked for (421): {refused.message}", cure_for("host", proxy)
        )
    if rewritten:
        return unknown("host", "the server sees another origin than was sent")
    if own.code == "origin_refused":
        text = f"the server sees another host than {host}, so its own pages are refused (403)"
        return wrong("host", text, cure_for("host", proxy))
    if own.trouble:
        return unknown("host", own.trouble)
    return well("host", f"{host} reaches the server")


def judge_version(answer: HttpAnswer, proxy: str | None) -> Finding:
    """Judge the version of HTTP that the server gets: its refusal of a plain GET of `/v1/connect` names it."""
    if answer.code != "upgrade_required":
        return unknown("http-version", "the server did not say what it gets")
    if OLD_VERSION in answer.message:
        text = "the proxy speaks HTTP/1.0 to the server: no WebSocket, and a connection for each request"
        return wrong("http-version", text, cure_for("http-version", proxy))
    return well("http-version", "HTTP/1.1 reaches the server")


def judge_ready(answers: Sequence[HttpAnswer], proxy: str | None) -> Finding:
    """Judge the answers of `/readyz` on connections of their own."""
    not_ready = [answer for answer in answers if answer.status != 200]
    if not not_ready:
        return well("ready", f"{len(answers)} of {len(answers)} connections met a node that is ready")
    said = not_ready[0].message or not_ready[0].trouble or f"the answer is {not_ready[0].status}"
    text = f"{len(not_ready)} of {len(answers)} connections met a node that is not: {said}"
    return wrong("ready", text, cure_for("ready", proxy))


def judge_clock(answer: HttpAnswer) -> Finding:
    """Judge the Date of an answer against the time at which it came. A proxy may have written its own."""
    try:
        date = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        return unknown("clock", "the answer has no Date")
    behind = answer.sent - (date + 1)  # it has lost its fraction of a second
    ahead = date - answer.came
    if max(behind, ahead) > SKEW_SECONDS:
        side = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
        return wrong("clock", f"the clock there is {side} this one", cure_for("clock", None))
    return well("clock", f"agrees within {SKEW_SECONDS:g} s")


def judge_token(answer: HttpAnswer, *, given: bool, channel: str) -> Finding:
    """Judge the answer to a poll of the channel; `given`: a token was sent."""
    if answer.code == "unauthorized" and not given:
        return unknown("token", "the channel needs one: put it into ONCECAST_TOKEN")
    if answer.code == "unauthorized":
        return wrong("token", f"it is refused: {answer.message}", cure_for("token", None))
    if answer.code == "forbidden":
        text = f"{'it' if given else 'nobody without one'} may not read {channel}: {answer.message}"
        return wrong("token", text, cure_for("token", None)) if given else unknown("token", text)
    if answer.status != 200:
        return unknown("token", answer.message or answer.trouble or f"the answer is {answer.status}")
    return well("token", f"{'it may' if given else 'none is needed to'} read {channel}")


def judge_rewriting(origin: str, answer: HttpAnswer, proxy: str | None) -> Finding | None:
    """Judge a refusal that names another origin than the one that was sent; None where it does not."""
    named = NAMED_ORIGIN.match(answer.message) if answer.code == "origin_refused" else None
    if named is None or named[1] == f"{origin[:100]!a}":
        return None
    return wrong("origin", f"the server sees the origin {named[1]} where {origin} was sent", cure_for(REWRITTEN, proxy))


def judge_cors(origin: str, own: bool, plain: HttpAnswer, preflight: HttpAnswer, proxy: str | None) -> list[Finding]:
    """Judge what a page of `origin` gets; `own`: it is the URL's own origin, which needs no headers."""
    if rewritten := judge_rewriting(origin, plain, proxy):
        return [rewritten, unknown("cors", "the origin is refused")]
    if plain.code == "origin_refused":
        return [
            wrong("origin", f"pages of {origin} are refused (403)", cure_for("origin", None)),
            unknown("cors", "the origin is refused"),
        ]
    if plain.code or plain.trouble:
        said = plain.message or plain.trouble
        return [unknown("origin", said), unknown("cors", said)]
    allowed = well("origin", f"pages of {origin} may connect")
    if own:
        return [allowed, well("cors", "needed for other origins only")]
    for what, answer in (("an answer", plain), ("the answer to a preflight", preflight)):
        given = answer.headers.get("access-control-allow-origin", "")
        said = f"{what} has {f'Access-Control-Allow-Origin: {given}' if given else 'no Access-Control-Allow-Origin'}"
        if answer is preflight and answer.status // 100 != 2:
            said = f"a preflight (OPTIONS) is answered {answer.status or answer.trouble}"
        elif given in (origin, "*"):
            continue
        elif "," in given:
            said = f"{said}: two, as the proxy adds its own"
        return [allowed, wrong("cors", f"{said}, so browsers keep it from the page", cure_for("cors", proxy))]
    return [allowed, well("cors", "answers and preflights have the headers")]


def judge_upgrade(handshake: Handshake, proxy: str | None) -> Finding:
    """Judge an attempt to open a WebSocket."""
    answer = handshake.answer
    if handshake.opened and handshake.spoke:
        return well("upgrade", "a WebSocket opens, and a frame comes back")
    if handshake.opened:
        return wrong("upgrade", "a WebSocket opens, but no frame comes back", cure_for("upgrade", proxy))
    if answer.code == "upgrade_required" or "Upgrade" in answer.message:
        return wrong("upgrade", "Upgrade does not reach the server, so no WebSocket opens", cure_for("upgrade", proxy))
    if OLD_VERSION.rpartition("/")[0] in answer.message and answer.code == "request_invalid":
        return wrong("upgrade", f"no WebSocket opens: {answer.message}", cure_for("upgrade", proxy))
    if answer.code:
        return unknown("upgrade", f"the server refuses it: {answer.message}")
    what = answer.trouble or f"a WebSocket is answered {answer.status}, and not by Oncecast"
    return wrong("upgrade", what, cure_for("upgrade", proxy))


def judge_stream(streamed: Streamed, delays: EventDelays | None, waited: float, proxy: str | None) -> list[Finding]:
    """Judge a stream's beginning, of which `waited` seconds were waited for, and the delays of its events."""
    answer = streamed.answer
    if answer.code:
        said = f"the server refuses the stream: {answer.message}"
        return [unknown("buffering", said), unknown("compression", said)]
    if answer.status not in (0, 200):
        said = f"a stream is answered {answer.status}, and not by Oncecast"
        return [wrong("buffering", said, cure_for("server", proxy)), unknown("compression", said)]
    coding = answer.headers.get("content-encoding", "identity")
    if answer.status == 0:
        compression = unknown("compression", answer.trouble)
    elif coding != "identity":
        compression = wrong(
            "compression", f"the stream is compressed on its way ({coding})", cure_for("compression", proxy)
        )
    else:
        compression = well("compression", "the stream comes as it was sent")
    if streamed.began is None:
        text = f"nothing of a stream comes for {waited:g} s: it is held back"
        if answer.trouble:
            text = f"{text} ({answer.trouble})"
        return [wrong("buffering", text, cure_for("buffering", proxy)), compression]
    return [judge_delays(streamed, delays, proxy), compression]


def judge_delays(streamed: Streamed, delays: EventDelays | None, proxy: str | None) -> Finding:
    """Judge how long after its publish an event comes; without publishes the beginning has to do."""
    began = f"a stream begins after {(streamed.began or 0) * 1000:.0f} ms"
    if delays is None:
        return well("buffering", f"{began}; give --channel to see each event")
    if delays.refused:
        return well("buffering", f"{began}; events were not looked at: {delays.refused}")
    came = [seconds for seconds in delays.seconds if seconds is not None]
    if len(came) < len(delays.seconds):
        text = f"{len(delays.seconds) - len(came)} of {len(delays.seconds)} events did not come: they are held back"
        return wrong("buffering", text, cure_for("buffering", proxy))
    if min(came) >= LATE_SECONDS:  # all of them: a busy machine delays some
        text = f"each event comes {min(came):.2f} s late: small pieces are held back"
        return wrong("buffering", text, cure_for("buffering", proxy))
    return well("buffering", f"{began}, and its events come within {min(came) * 1000:.0f} ms")


def judge_quiet(quiets: Sequence[Quiet], seconds: float, proxy: str | None) -> Finding:
    """Judge connections on which nothing was said for `seconds`."""
    cut = [quiet for quiet in quiets if quiet.end]
    if not quiets:
        return unknown("quiet", "no connection could be opened" if seconds else "--quiet-seconds is 0")
    if cut:
        ends = "; ".join(f"{each.transport} after {each.lasted:.1f} s ({each.end})" for each in cut)
        return wrong("quiet", f"quiet connections are cut: {ends}", cure_for("quiet", proxy))
    kept = [f"{each.transport} for {round(min(each.lasted, seconds), 2):g} s" for each in quiets]
    return well("quiet", f"kept: {', '.join(kept)}")


def judge_one_log(readings: Sequence[Reading], *, published: bool) -> Finding:
    """Judge what connections to perhaps several nodes have read; `published`: a message was looked for."""
    if not readings:
        return unknown("one-log", "the channel could not be read")
    lives = {reading.cursor.rpartition("-")[0] for reading in readings}
    if len(lives) > 1:
        return wrong(
            "one-log", f"{len(readings)} connections met {len(lives)} different logs", cure_for("one-log", None)
        )
    missing = sum(reading.has_it is False for reading in readings)
    if published and missing:
        text = f"{missing} of {len(readings)} connections lack a message that another has published, a second later"
        return wrong("one-log", text, cure_for("one-log", None))
    more = "the same message" if published else "the same log; give --channel to publish a message and look for it"
    return well("one-log", f"{len(readings)} connections have {more}")
