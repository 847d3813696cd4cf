"""The judges, without a network: each observation has its verdict."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from oncecast.doctor.cures import CURES, PROXIES, REWRITTEN, cure_for, proxy_of
from oncecast.doctor.findings import CHECKS, Finding, Judgement
from oncecast.doctor.judges import (
    judge_clock,
    judge_cors,
    judge_host,
    judge_one_log,
    judge_quiet,
    judge_ready,
    judge_server,
    judge_stream,
    judge_token,
    judge_upgrade,
    judge_version,
)
from oncecast.doctor.observations import EventDelays, Handshake, HttpAnswer, Quiet, Reading, Streamed
from oncecast.errors import Refusal
from oncecast.policy.origin import Origins

PAGE = "https://page.example"
NOW = 1_764_000_000.0
SOUND = HttpAnswer(status=200, headers={"access-control-allow-origin": PAGE})
AWAY = HttpAnswer(trouble="the server sent nothing for 10 s")


def refused(code: str, message: str = "No.") -> HttpAnswer:
    """Return a refusal of Oncecast."""
    return HttpAnswer(status=400, code=code, message=message)


def dated(seconds: float) -> HttpAnswer:
    """Return an answer whose Date is so far from the clock here."""
    return HttpAnswer(status=200, headers={"date": formatdate(NOW + seconds, usegmt=True)}, sent=NOW, came=NOW + 0.2)


def of_a_server(origin: str) -> str:
    """Return what a server says that refuses this origin."""
    try:
        Origins().check(origin, "a.example", "https")
    except Refusal as refusal:
        return refusal.message
    raise AssertionError("it is not refused")


def began(*delays: float | None, refused: str = "", coding: str = "") -> list[Finding]:
    """Return the findings about a stream that began, and whose events came so late."""
    headers = {"content-encoding": coding} if coding else {}
    return judge_stream(Streamed(HttpAnswer(status=200, headers=headers), 0.01), EventDelays(delays, refused), 5, None)


@pytest.mark.parametrize(
    ("finding", "check", "verdict", "said"),
    [
        (judge_server(refused("upgrade_required"), None), "server", "well", ""),
        (judge_server(refused("not_found"), None), "server", "wrong", "another path"),
        (judge_server(HttpAnswer(status=502), "nginx"), "server", "wrong", "502"),
        (judge_server(AWAY, None), "server", "wrong", "nothing for 10 s"),
        (judge_host(SOUND, refused("host_refused"), "a.example", None), "host", "wrong", "421"),
        (judge_host(refused("host_refused"), SOUND, "a.example", None), "host", "wrong", "421"),
        (
            judge_host(SOUND, refused("origin_refused"), "a.example", None),
            "host",
            "wrong",
            "another host than a.example",
        ),
        (judge_host(SOUND, AWAY, "a.example", None), "host", "unknown", "nothing"),
        (judge_host(SOUND, SOUND, "a.example", None), "host", "well", "a.example"),
        (judge_version(refused("upgrade_required", "by HTTP/1.0."), None), "http-version", "wrong", "HTTP/1.0"),
        (judge_version(refused("upgrade_required", "by HTTP/1.1."), None), "http-version", "well", "HTTP/1.1"),
        (judge_version(refused("unauthorized"), None), "http-version", "unknown", ""),
        (judge_ready([HttpAnswer(status=200)] * 6, None), "ready", "well", "6 of 6"),
        (
            judge_ready([HttpAnswer(status=200), HttpAnswer(status=503, message="Not ready")], None),
            "ready",
            "wrong",
            "1 of 2",
        ),
        (judge_ready([AWAY], None), "ready", "wrong", "nothing"),
        (judge_clock(dated(0)), "clock", "well", ""),
        (judge_clock(dated(5)), "clock", "well", ""),
        (judge_clock(dated(7)), "clock", "wrong", "7 s ahead"),
        (judge_clock(dated(-60)), "clock", "wrong", "59 s behind"),
        (judge_clock(HttpAnswer(status=200)), "clock", "unknown", "no Date"),
        (judge_clock(HttpAnswer(status=200, headers={"date": "yesterday"})), "clock", "unknown", "no Date"),
        (judge_token(HttpAnswer(status=200), given=True, channel="a"), "token", "well", "it may"),
        (
            judge_token(refused("unauthorized", "It has ended."), given=True, channel="a"),
            "token",
            "wrong",
            "It has ended.",
        ),
        (judge_token(refused("unauthorized"), given=False, channel="a"), "token", "unknown", "ONCECAST_TOKEN"),
        (judge_token(refused("forbidden"), given=True, channel="a"), "token", "wrong", "may not read a"),
        (judge_token(refused("forbidden"), given=False, channel="a"), "token", "unknown", "may not read a"),
        (judge_token(AWAY, given=True, channel="a"), "token", "unknown", "nothing"),
        (judge_upgrade(Handshake(True, True), None), "upgrade", "well", ""),
        (judge_upgrade(Handshake(True), None), "upgrade", "wrong", "no frame"),
        (
            judge_upgrade(Handshake(False, answer=refused("upgrade_required")), None),
            "upgrade",
            "wrong",
            "does not reach",
        ),
        (
            judge_upgrade(Handshake(False, answer=refused("request_invalid", "Send Connection: Upgrade.")), None),
            "upgrade",
            "wrong",
            "does not reach",
        ),
        (
            judge_upgrade(Handshake(False, answer=refused("request_invalid", "It needs HTTP/1.1.")), None),
            "upgrade",
            "wrong",
            "HTTP/1.1",
        ),
        (judge_upgrade(Handshake(False, answer=refused("unauthorized")), None), "upgrade", "unknown", "No."),
        (judge_upgrade(Handshake(False, answer=HttpAnswer(status=403)), None), "upgrade", "wrong", "403"),
        (began(0.2, 0.001)[0], "buffering", "well", "1 ms"),
        (began(0.2, 0.21)[0], "buffering", "wrong", "0.20 s late"),
        (began(0.001, None)[0], "buffering", "wrong", "1 of 2 events"),
        (began(refused="No.")[0], "buffering", "well", "No."),
        (began(0.001)[1], "compression", "well", ""),
        (began(0.001, coding="gzip")[1], "compression", "wrong", "gzip"),
        (judge_stream(Streamed(AWAY), None, 5, None)[0], "buffering", "wrong", "5 s"),
        (judge_stream(Streamed(AWAY), None, 5, None)[1], "compression", "unknown", "nothing"),
        (judge_stream(Streamed(refused("unauthorized")), None, 5, None)[0], "buffering", "unknown", "No."),
        (judge_stream(Streamed(HttpAnswer(status=502)), None, 5, "nginx")[0], "buffering", "wrong", "answered 502"),
        (judge_stream(Streamed(HttpAnswer(status=403)), None, 5, None)[1], "compression", "unknown", "answered 403"),
        (judge_quiet([Quiet("SSE", 20)], 20, None), "quiet", "well", "SSE"),
        (judge_quiet([Quiet("SSE", 70.1), Quiet("long poll", 25)], 70, None), "quiet", "well", "SSE for 70 s, long p"),
        (judge_quiet([Quiet("SSE", 70.1), Quiet("long poll", 25)], 70, None), "quiet", "well", "long poll for 25 s"),
        (judge_quiet([Quiet("SSE", 20), Quiet("WebSocket", 1.04, "closed")], 20, None), "quiet", "wrong", "1.0 s"),
        (judge_quiet([], 0, None), "quiet", "unknown", "--quiet-seconds"),
        (judge_quiet([], 20, None), "quiet", "unknown", "could be opened"),
        (judge_one_log([Reading("a-1"), Reading("a-2")], published=False), "one-log", "well", "--channel"),
        (judge_one_log([Reading("a-1"), Reading("b-1")], published=False), "one-log", "wrong", "2 different logs"),
        (judge_one_log([Reading("a-2", True), Reading("a-1", False)], published=True), "one-log", "wrong", "1 of 2"),
        (judge_one_log([Reading("a-2", True)], published=True), "one-log", "well", "same message"),
        (judge_one_log([], published=False), "one-log", "unknown", ""),
    ],
)
def test_verdicts(finding: Finding, check: str, verdict: str, said: str) -> None:
    """Each observation has the verdict of its check, words that say what was seen, and a cure where it is wrong."""
    assert (check, verdict) == (finding.check, finding.verdict.value)
    assert said in finding.text
    assert (finding.verdict is Judgement.WRONG) == bool(finding.cure)


@pytest.mark.parametrize(
    ("plain", "preflight", "verdicts"),
    [
        (SOUND, SOUND, ("well", "well")),
        (refused("origin_refused"), SOUND, ("wrong", "unknown")),
        (refused("origin_refused", of_a_server(PAGE)), SOUND, ("wrong", "unknown")),
        (refused("origin_refused", of_a_server("https://b")), SOUND, ("wrong", "unknown")),
        (refused("host_refused"), SOUND, ("unknown", "unknown")),
        (HttpAnswer(status=200), SOUND, ("well", "wrong")),
        (HttpAnswer(status=200, headers={"access-control-allow-origin": f"{PAGE}, *"}), SOUND, ("well", "wrong")),
        (SOUND, HttpAnswer(status=405), ("well", "wrong")),
        (SOUND, HttpAnswer(status=204), ("well", "wrong")),
    ],
)
def test_what_a_page_of_another_origin_gets(
    plain: HttpAnswer, preflight: HttpAnswer, verdicts: tuple[str, str]
) -> None:
    """An origin is refused by the server, and headers get lost on the way: two findings."""
    found = judge_cors(PAGE, False, plain, preflight, None)
    assert verdicts == tuple(each.verdict.value for each in found)


def test_the_own_origin_needs_no_headers() -> None:
    """Pages of the server's own address are sent none."""
    own = judge_cors(PAGE, True, HttpAnswer(status=200), HttpAnswer(status=404), None)
    assert ["well", "well"] == [each.verdict.value for each in own]


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"server": "nginx/1.22.1"}, "nginx"),
        ({"server": "Apache/2.4.71 (Debian)"}, "httpd"),
        ({"server": "Caddy"}, "caddy"),
        ({"via": "1.1 Caddy"}, "caddy"),
        ({"server": "cloudflare"}, None),
        ({}, None),
    ],
)
def test_proxies_are_known_by_their_headers(headers: dict[str, str], name: str | None) -> None:
    """Server or Via says which proxy it is, where it is one that is known."""
    assert name == proxy_of(headers)


def test_each_check_has_a_cure() -> None:
    """There is one for any proxy, and each of the others is for a proxy that is known."""
    assert set(CHECKS) - {"cors"} <= set(CURES) <= {*CHECKS, REWRITTEN}
    for check, cures in CURES.items():
        assert "" in cures, check
        assert set(cures) - {""} <= set(PROXIES), check
    assert cure_for("quiet", "nginx") != cure_for("quiet", None) == cure_for("quiet", "unheard of")
