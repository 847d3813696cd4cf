"""Answers that more than one route gives."""

from __future__ import annotations

import json

from oncecast.errors import ERRORS, Refusal
from oncecast.http.replies import error_reply, text_reply


def test_every_error_as_an_answer() -> None:
    """Each error has its status, and a body that names code, message and explanation."""
    for code, row in ERRORS.items():
        reply = error_reply(Refusal(code, "What to do."))
        assert row.status == reply.status
        assert {"error": {"code": code, "message": "What to do.", "docs": f"/docs/errors#{code}"}} == json.loads(
            reply.body
        )
        assert (b"}\n", 1) == (reply.body[-2:], reply.body.count(b"\n"))
        assert {"Content-Type": "application/json", "Cache-Control": "no-store"}.items() <= dict(reply.headers).items()


def test_retry_after_is_whole_seconds_and_at_least_one() -> None:
    """RFC 9110 §10.2.3 wants whole seconds: they are rounded up, for an early retry fails again."""
    for seconds, expected in ((0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (30, "30")):
        reply = error_reply(Refusal("unavailable", "Later.", retry_after=seconds))
        assert expected == dict(reply.headers)["Retry-After"]


def test_allow_names_the_methods() -> None:
    """RFC 9110 §15.5.6: 405 says what is allowed."""
    assert (
        "GET, POST" == dict(error_reply(Refusal("method_not_allowed", "No.", allow=("GET", "POST"))).headers)["Allow"]
    )


def test_upgrade_required_names_the_version() -> None:
    """RFC 6455 §4.4: the answer to a wrong version has the right one."""
    headers = dict(error_reply(Refusal("upgrade_required", "Use 13.")).headers)
    assert ("websocket", "13") == (headers["Upgrade"], headers["Sec-WebSocket-Version"])


def test_a_line_of_text() -> None:
    """Plain text is one line in UTF-8 that nobody stores."""
    reply = text_reply(200, "ok")
    assert (200, b"ok\n") == (reply.status, reply.body)
    assert {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"} == dict(reply.headers)
