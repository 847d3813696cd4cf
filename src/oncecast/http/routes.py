"""Which path and method does what. To add a path, add it to `handle`."""

from __future__ import annotations

from functools import lru_cache, partial

from ..errors import Refusal
from ..message import check_channel
from ..policy.origin import preflight
from ..protocol.base import Reply
from ..protocol.query import parse_channels
from ..wire import http1
from . import listening, operator, pages, publishing, users
from .credentials import has_field
from .exchange import Exchange
from .service import Service

CHANNELS = "/v1/channels/"
CONNECT = "/v1/connect"


def handle(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Answer a request, now or later. Raises `Refusal`."""
    if request.method == "GET" and service.ready:
        poll = service.memo.get(request, service.node.log.version, service.second)
        if poll is not None:  # so the rules allow this host and origin
            if not poll.public and not service.recognize(connection, poll):
                service.access.subscribe(connection.identity, poll.channels)
            service.counters.remembered += 1
            connection.send(poll.answer)
            return
    path = request.path
    is_channel = path.startswith(CHANNELS)
    if not (is_channel or path.startswith("/v1/")):
        pages.answer(service, connection, request, path)
        return
    headers = request.headers
    service.hosts.check(headers.get("host"))
    cors = service.check_origin(request) if "origin" in headers else ()
    if service.identifies:
        service.identify(connection, request)
    if is_channel:
        allow: tuple[str, ...] = ("GET", "HEAD", "POST", "OPTIONS")
        if request.method in ("GET", "HEAD"):
            channels = parse_channels(path[len(CHANNELS) :])
            if has_field(request.query, "ticket"):
                users.with_ticket(
                    service, connection, request, partial(listening.listen, service, connection, request, channels)
                )
                return
            listening.listen(service, connection, request, channels)
            return
        if request.method == "POST":
            publishing.publish(service, connection, request, _channel_of(path))
            return
    elif path == publishing.PUBLISH:
        allow = ("POST", "OPTIONS")
        if request.method == "POST":
            publishing.publish_batch(service, connection, request)
            return
    elif path == CONNECT:
        allow = ("GET", "HEAD", "OPTIONS")
        if request.method in ("GET", "HEAD"):
            users.with_ticket(service, connection, request, partial(listening.connect, service, connection, request))
            return
    elif path in (users.TICKET, users.DISCONNECT):
        allow = ("POST", "OPTIONS")
        if request.method == "POST":
            (users.issue_ticket if path == users.TICKET else users.disconnect)(service, connection, request)
            return
    elif path == operator.OVERVIEW:
        allow = ("GET", "HEAD", "OPTIONS")
        if request.method in ("GET", "HEAD"):
            operator.answer(service, connection, request)
            return
    elif path == operator.DRAIN:
        allow = ("POST", "OPTIONS")
        if request.method == "POST":
            operator.drain(service, connection, request)
            return
    elif path in service.pages:  # a document about what is here
        pages.answer(service, connection, request, path)
        return
    else:
        raise Refusal("not_found", f"There is nothing here: channels are at {CHANNELS}NAME.")
    if request.method != "OPTIONS":
        raise Refusal("method_not_allowed", f"Use one of {', '.join(allow)} here.", allow=allow)
    allowed = preflight(()) if cors and "access-control-request-method" in headers else ()
    connection.reply(Reply(204, (("Allow", ", ".join(allow)), *allowed), b""))


def redeems(service: Service, request: http1.Request) -> bool:
    """Return whether a ticket, and not other credentials, identifies this request. Raises `Refusal`."""
    return (
        service.authenticator is not None
        and request.method in ("GET", "HEAD")
        and (request.path.startswith(CHANNELS) or request.path == CONNECT)
        and users.has_ticket(request)
    )


@lru_cache(maxsize=1024)  # publishers repeat themselves
def _channel_of(path: str) -> str:
    return check_channel(path[len(CHANNELS) :])
