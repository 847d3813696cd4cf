"""Answers that more than one route gives."""

from __future__ import annotations

from math import ceil

from ..errors import Refusal
from ..protocol.base import Reply, json_reply
from ..wire import envelope


def error_reply(refusal: Refusal) -> Reply:
    """Return the coded error as JSON, with the headers that its status asks for (RFC 9110 §15)."""
    headers: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after is not None:
        headers = (*headers, ("Retry-After", str(max(1, ceil(refusal.retry_after)))))
    if refusal.allow:
        headers = (*headers, ("Allow", ", ".join(refusal.allow)))
    if refusal.code == "upgrade_required":
        # RFC 9110 §15.5.22, RFC 6455 §4.4
        headers = (*headers, ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    return json_reply(refusal.error.status, envelope.error_json(refusal), *headers)


def text_reply(status: int, text: str) -> Reply:
    """Return one line of plain text."""
    return Reply(
        status, (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")), f"{text}\n".encode()
    )
