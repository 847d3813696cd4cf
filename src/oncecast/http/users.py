"""`POST /v1/ticket` and `POST /v1/disconnect`, and requests that come with a ticket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, TypeAlias, TypeVar

import msgspec

from ..errors import Refusal
from ..message import CHANNEL_PATTERN, Receipt
from ..policy.channels import is_pattern
from ..policy.identity import Identity, Patterns
from ..policy.tokens import PATTERNS, SUBJECT_CHARS, is_subject
from ..protocol.base import json_reply
from ..wire import envelope, http1
from .bulletin import TICKET_SECONDS, Bulletin
from .credentials import has_field, read_fields
from .exchange import Exchange
from .service import Service

__all__ = [
    "DISCONNECT",
    "TICKET",
    "DisconnectRequest",
    "TicketRequest",
    "disconnect",
    "has_ticket",
    "issue_ticket",
    "with_ticket",
]

T = TypeVar("T")

TICKET = "/v1/ticket"
DISCONNECT = "/v1/disconnect"
SERVED_SECONDS = 3600.0  # for which a ticket that a server asks for lets a user stay connected


SubjectField: TypeAlias = Annotated[
    str,
    msgspec.Meta(
        description="The user.", extra_json_schema={"pattern": r"^[^\x00-\x1f\x7f-\x9f]+$", "maxLength": SUBJECT_CHARS}
    ),
]


PatternField: TypeAlias = Annotated[
    str, msgspec.Meta(extra_json_schema={"pattern": f"^({CHANNEL_PATTERN.pattern}\\*?|\\*)$"})
]
PatternsField: TypeAlias = Annotated[
    list[PatternField],
    msgspec.Meta(
        description="Patterns of channels: names, prefixes and `*`, or `*`.",
        extra_json_schema={"maxItems": PATTERNS // 2},  # both lists together have at most `PATTERNS`
    ),
]


class TicketRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What a server asks a ticket for."""

    sub: SubjectField
    subscribe: PatternsField | None = None
    publish: PatternsField | None = None


class DisconnectRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Whose connections a server ends, and whether older tokens are refused from now on."""

    sub: SubjectField
    revoke: bool = False


def issue_ticket(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Answer 201 with a ticket for the user of the request, or for the user that a server names. Raises `Refusal`."""
    bulletin = _bulletin(service)
    identity = connection.identity
    if identity.kind == "anybody":
        raise Refusal("unauthorized", "A ticket stands for a token: send one as Authorization: Bearer.")
    if identity.kind == "server":
        identity = _named(request.body, service.wall())
    now = connection.now()
    connection.spend_publishes(1, 0, now)  # a ticket is a record of the log
    if service.settings.quotas is not None:
        service.settings.quotas.issue(connection.identity, now)

    def issued(ticket: str | Refusal) -> None:
        if isinstance(ticket, Refusal):
            connection.reply(ticket)
        else:
            body = msgspec.json.encode({"ticket": ticket, "expires_in": int(TICKET_SECONDS)})
            connection.reply(json_reply(201, body))

    bulletin.issue(identity, issued)
    connection.wait(request)


def disconnect(service: Service, connection: Exchange, request: http1.Request) -> None:
    """End the connections of a user on every node, and answer 200 with the record's receipt. Raises `Refusal`."""
    bulletin = _bulletin(service)
    if connection.identity.kind != "server":
        code = "unauthorized" if connection.identity.kind == "anybody" else "forbidden"
        raise Refusal(code, "Only a server's key may disconnect users.")
    asked = _decode(request.body, DisconnectRequest, '{"sub": "…"}, and "revoke": true to refuse older tokens too')

    def published(outcome: Receipt | Refusal) -> None:
        if isinstance(outcome, Refusal):
            connection.reply(outcome)
        else:
            connection.reply(json_reply(200, envelope.receipt_json(outcome)))

    bulletin.end(_subject(asked.sub), published, revoke=asked.revoke)
    connection.wait(request)


def has_ticket(request: http1.Request) -> bool:
    """Return whether a request has a ticket where `with_ticket` looks for one. Raises `Refusal`."""
    return _ticket_of(request.query) is not None


def with_ticket(service: Service, connection: Exchange, request: http1.Request, answer: Callable[[], None]) -> None:
    """Answer a request, as soon as the ticket in its query is redeemed, where it has one. Raises `Refusal`."""
    ticket = None if service.authenticator is None else _ticket_of(request.query)
    if ticket is None:
        answer()
        return
    if connection.identity.kind != "anybody":
        raise Refusal("request_invalid", "The request has a ticket and a token: send one of them.")
    redeemed = partial(_redeemed, service, connection, request, answer)
    _bulletin(service).redeem(ticket, redeemed)
    connection.wait(request)


def _redeemed(
    service: Service,
    connection: Exchange,
    request: http1.Request,
    answer: Callable[[], None],
    found: Identity | Refusal,
) -> None:
    def go_on() -> None:
        if isinstance(found, Refusal):
            raise found.copy()
        identity = replace(found, address=connection.identity.address)
        if not identity.lasts(service.wall()):
            raise Refusal("unauthorized", "The token that this ticket stands for has ended: get a fresh one.")
        service.check_counts(identity)
        connection.identity = identity
        answer()

    connection.proceed(request, go_on)


def _bulletin(service: Service) -> Bulletin:
    if service.authenticator is None or service.bulletin is None:
        raise Refusal("not_found", "This server has no keys in its settings, so it knows no users.")
    return service.bulletin


def _named(body: bytes, now: float) -> Identity:
    """Return the user whom a server names."""
    asked = _decode(body, TicketRequest, '{"sub": "…"}, and "subscribe" and "publish" with lists of patterns')
    patterns = [*(asked.subscribe or ()), *(asked.publish or ())]
    if len(patterns) > PATTERNS or not all(map(is_pattern, patterns)) or any("{" in each for each in patterns):
        raise Refusal("request_invalid", f"Give at most {PATTERNS} patterns: names, prefixes and *, or *.")
    return Identity(
        "",
        _subject(asked.sub),
        "token",
        *_granted(asked.subscribe, asked.publish),
        now,
        now + SERVED_SECONDS,
    )


def _granted(subscribe: list[str] | None, publish: list[str] | None) -> tuple[Patterns | None, Patterns | None]:
    """Return what a ticket grants. As in a token: where one list is given, the other is empty unless it is too."""
    if subscribe is None and publish is None:
        return None, None
    return tuple(subscribe or ()), tuple(publish or ())


def _subject(subject: str) -> str:
    if not is_subject(subject):
        text = f"sub is a user: a text of 1 to {SUBJECT_CHARS} characters, none of them a control character."
        raise Refusal("request_invalid", text)
    return subject


def _decode(body: bytes, kind: type[T], wanted: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Refusal("request_invalid", f"Send JSON: {wanted}.") from None


def _ticket_of(query: str) -> str | None:
    if not has_field(query, "ticket"):
        return None
    given = [value for name, value in read_fields(query) if name == "ticket"]
    if len(given) > 1:
        raise Refusal("request_invalid", "ticket stands twice in the query: give it once.")
    if given == [""]:
        raise Refusal("unauthorized", "The query has an empty ticket: leave it out, or fill it in.")
    return given[0] if given else None
