"""POST of a message to a channel, and of a batch: from a body to drafts, and from outcomes to an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial

from msgspec import structs

from ..brokers.base import Outcome
from ..errors import Refusal
from ..message import BINARY, JSON, TEXT, Draft, Kind, check_event, check_key
from ..policy.access import ALLOW_ALL
from ..protocol import base
from ..protocol.base import JSON_HEADERS, KEPT_CHARS, Reply
from ..wire import draft_fields, envelope, http1, payload
from ..wire.traceparent import parse_traceparent
from .exchange import Exchange
from .service import Service

BATCH_LINES = 4000  # at 7 µs each, a batch holds the event loop for less than 30 ms

JSON_SPACE = b" \t\r"  # inside a line (RFC 8259 §2)
_EMPTY_LINES = re.compile(rb"\n[ \t\r\n]+")

PUBLISH = "/v1/publish"
NDJSON_HEADERS = (("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-store"))


def publish(service: Service, connection: Exchange, request: http1.Request, channel: str) -> None:
    """Publish the request's body as one message, and answer 201 with its receipt. Raises `Refusal`."""
    headers, settings = request.headers, service.settings
    if service.access is not ALLOW_ALL:
        service.access.publish(connection.identity, channel)
    event = key = None
    if "oncecast-event" in headers:
        event = check_event(_utf8("event_invalid", "Oncecast-Event", headers["oncecast-event"]))
    if "idempotency-key" in headers:
        key = check_key(_utf8("key_invalid", "Idempotency-Key", headers["idempotency-key"]))
    if len(request.body) > settings.message_bytes:
        raise Refusal("body_too_large", f"A message is at most {settings.message_bytes} bytes.")
    data, kind = _typed(request.body, headers.get("content-type", ""))
    now = connection.now()
    connection.spend_publishes(1, len(data), now)
    if settings.quotas is not None:
        settings.quotas.publish(connection.identity, channel, len(data), now)
    drafts = (Draft(channel, data, kind, event, key, parse_traceparent(headers.get("traceparent"))),)
    base.publish(service.node, settings, connection, connection.identity, drafts, partial(_published, connection))
    connection.wait(request)


def _utf8(code: str, name: str, value: str) -> str:
    """Read a header's value as UTF-8; the codec gave it as Latin-1, which keeps its bytes (RFC 9110 §5.5)."""
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise Refusal(code, f"The header {name} is not UTF-8: encode it so, or publish by {PUBLISH}.") from None


def _published(connection: Exchange, outcomes: Sequence[Outcome]) -> None:
    outcome = outcomes[0]
    if isinstance(outcome, Refusal):
        connection.reply(outcome)
    else:
        connection.reply(Reply(201, JSON_HEADERS, envelope.receipt_json(outcome) + b"\n"))


def _too_many_lines() -> Refusal:
    return Refusal("body_too_large", f"A batch has at most {BATCH_LINES} lines: send several.")


def publish_batch(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Publish each JSON line of the body, and answer with one line for each. Raises `Refusal`."""
    body = request.body
    if body.count(b"\n") >= BATCH_LINES:
        body = _EMPTY_LINES.sub(b"\n", body)  # they do not count, and to split at each would take long
    if body.count(b"\n") > BATCH_LINES + 1:  # one before the first, and one behind the last
        raise _too_many_lines()  # without a list of them, which would be many times the body
    lines = [line for line in body.split(b"\n") if line.strip(JSON_SPACE)]
    if len(lines) > BATCH_LINES:
        raise _too_many_lines()
    if not lines:
        raise Refusal("request_invalid", 'Send JSON lines: {"channel": …, "data": …}, one for each message.')
    quotas, now = service.settings.quotas, connection.now()
    connection.spend_publishes(len(lines), len(body), now)
    trace = parse_traceparent(request.headers.get("traceparent"))
    results: list[Outcome | None] = []
    drafts = []
    for line in lines:
        draft = None
        try:
            draft = _line(line, service.settings.message_bytes)
            if service.access is not ALLOW_ALL:
                service.access.publish(connection.identity, draft.channel)
            if quotas is not None:
                quotas.publish(connection.identity, draft.channel, len(draft.data), now)
            drafts.append(draft if draft.trace is not None or trace is None else structs.replace(draft, trace=trace))
            results.append(None)
        except Refusal as refusal:
            if service.settings.refused is not None:
                channel = None if draft is None else draft.channel
                service.settings.refused(refusal.error, connection.identity, channel, how="line")
            results.append(refusal.as_value())

    def done(outcomes: Sequence[Outcome]) -> None:
        published = iter(outcomes)
        answers = [next(published) if result is None else result for result in results]
        if service.settings.refused is not None:
            for result, answer in zip(results, answers, strict=True):
                if result is None and isinstance(answer, Refusal):
                    service.settings.refused(answer.error, connection.identity, how="line")
        body = b"".join(
            (envelope.error_json(a) if isinstance(a, Refusal) else envelope.receipt_json(a)) + b"\n" for a in answers
        )
        connection.reply(Reply(200, NDJSON_HEADERS, body))

    base.publish(service.node, service.settings, connection, connection.identity, drafts, done)
    connection.wait(request)


def _line(line: bytes, message_bytes: int) -> Draft:
    draft = draft_fields.parse_line(line)
    if len(draft.data) > message_bytes:
        raise Refusal("body_too_large", f"A message is at most {message_bytes} bytes.")
    return draft


def _typed(body: bytes, content_type: str) -> tuple[bytes, Kind]:
    """Read a body by its Content-Type (RFC 9110 §8.3)."""
    media, charset = (_known_type if len(content_type) <= KEPT_CHARS else _media_type)(content_type)
    if media == "application/json":
        return payload.json_data(body), JSON
    if media.startswith("text/"):
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise Refusal("type_unsupported", f"Send text as UTF-8, not as {charset[:40]}.")
        return payload.text_data(body), TEXT
    if media in ("", "application/x-www-form-urlencoded"):
        # No type, or the one that curl and urllib give any body: the data decides (RFC 9110 §8.3).
        return payload.sniff(body)
    return body, BINARY


def _media_type(content_type: str) -> tuple[str, str]:
    media, *parameters = content_type.split(";")
    charset = ""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset


_known_type = lru_cache(maxsize=256)(_media_type)
