"""The caller that an application's `authorize` function gets, and the grant that it returns."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from msgspec import structs

from ..client.failures import Refused
from ..errors import ERRORS, Refusal, UsageError
from ..http.credentials import TOKEN_PROTOCOL, public_query, read_credentials
from ..policy.channels import is_pattern
from ..policy.identity import Identity
from ..policy.tokens import LAST_SECOND, SUBJECT_CHARS, is_subject
from ..protocol.query import QUERY_FIELDS
from ..wire import http1
from .scopes import Scope

__all__ = ["Caller", "Grant", "WhoAsks", "ask", "call_in_time"]

logger = logging.getLogger("oncecast.asgi")

T = TypeVar("T")
SUBJECT_RULE = f"a str of 1 to {SUBJECT_CHARS} characters, none of them a control character"
# What a server says of a request (ASGI 3.0), and the application. All else is of middleware, and maybe of a cookie.
_OF_THE_SERVER = frozenset(
    {
        *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
        *("headers", "client", "server", "subprotocols", "extensions", "app"),
    }
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What the application grants to a caller: `subject` is the user, if it is one.

    `subscribe` and `publish` are channels, or patterns as in the settings (`chat.*`); None leaves it to the rules of
    the settings. With `expires`, in Unix seconds up to the year 9999, streams and sockets end then. Raises `UsageError`
    for what is no pattern, subject or time.
    """

    subject: str | None = None
    subscribe: Iterable[str] | None = ()
    publish: Iterable[str] | None = ()
    expires: float | None = None

    def __post_init__(self) -> None:
        for name in ("subscribe", "publish"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        if self.subject is not None and not (isinstance(self.subject, str) and is_subject(self.subject)):
            raise UsageError(f"subject: give {SUBJECT_RULE}, not {self.subject!r}")
        expires: object = self.expires
        if expires is not None and (
            isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 <= expires <= LAST_SECOND
        ):
            raise UsageError(f"expires: give Unix seconds, a number from 0 to {LAST_SECOND}")

    def identity(self, address: str, now: float) -> Identity:
        """Return the identity that this grants at an address."""
        subscribe = None if self.subscribe is None else tuple(self.subscribe)
        publish = None if self.publish is None else tuple(self.publish)
        return Identity(address, self.subject, "token", subscribe, publish, now, self.expires)


def _patterns(name: str, given: Iterable[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    patterns = (given,) if isinstance(given, str) else tuple(given)
    for pattern in patterns:
        if not isinstance(pattern, str) or not is_pattern(pattern) or "{" in pattern:
            raise UsageError(f"{name}: {pattern!r} is no channel or pattern: give names, prefixes and *, or *")
    return patterns


class Caller:
    """A caller: an HTTP request, or the handshake of a WebSocket.

    `address` is the client's, behind trusted proxies too. `scope` is that of ASGI. Where the page that asks is not one
    of your own origins, the scope has only what the server put there, without cookies, and `app`: a browser sends
    cookies for any page, and middleware may have made anything of them.
    """

    def __init__(
        self, request: http1.Request, scope: Scope, identity: Identity, *, cookies: bool, token: str | None = None
    ) -> None:
        if token is not None:  # it replaces what the handshake came with
            request, scope = _with_token(request, scope, token)
        self._request = request
        self.identity = identity
        self.headers: Mapping[str, str] = request.headers
        self.scope: Mapping[str, Any] = scope
        if not cookies:
            self.headers = {name: value for name, value in request.headers.items() if name != "cookie"}
            raw = [field for field in scope["headers"] if field[0].lower() != b"cookie"]
            kept = {name: value for name, value in scope.items() if name in _OF_THE_SERVER}
            self.scope = kept | {"headers": raw}

    @property
    def address(self) -> str:
        """The client's address, "" where the server does not know it."""
        return self.identity.address

    @property
    def method(self) -> str:
        """The method: `GET` to listen, `POST` to publish."""
        return self._request.method

    @property
    def path(self) -> str:
        """The path below the mount, such as `/v1/channels/orders`."""
        return self._request.path

    @cached_property
    def query(self) -> Mapping[str, str]:
        """The query's fields. Raises `Refusal` for one that the routes refuse too."""
        try:
            return dict(parse_qsl(self._request.query, keep_blank_values=True, max_num_fields=QUERY_FIELDS))
        except ValueError:
            raise Refusal("request_invalid", f"The query has over {QUERY_FIELDS} fields.") from None

    @cached_property
    def cookies(self) -> Mapping[str, str]:
        """The cookies."""
        try:
            return {name: morsel.value for name, morsel in SimpleCookie(self.headers.get("cookie", "")).items()}
        except CookieError:
            return {}

    @cached_property
    def token(self) -> str | None:
        """The token that a client sends, in `Authorization: Bearer`, a subprotocol, or the query.

        Raises `Refusal` for one that can't be read, and for several that differ: which of them counts is not known.
        """
        found = read_credentials(self._request, None)
        if len(found) > 1:
            raise Refusal("request_invalid", "The request has several tokens: send one.")
        return found[0] if found else None


def _with_token(request: http1.Request, scope: Scope, token: str) -> tuple[http1.Request, Scope]:
    """Return a handshake as if it had come with a token in `Authorization`, and with no other."""
    given = f"Bearer {token}"
    offered = request.headers.get("sec-websocket-protocol", "").split(",")
    protocols = ", ".join(name for each in offered if not (name := each.strip(" \t")).startswith(TOKEN_PROTOCOL))
    query = public_query(request.query)
    headers = {**request.headers, "authorization": given, "sec-websocket-protocol": protocols}
    changed = {"authorization": given, "sec-websocket-protocol": protocols}
    fields = [field for field in scope["headers"] if field[0].lower().decode("latin-1") not in changed]
    fields += [(name.encode(), value.encode("utf-8", "replace")) for name, value in changed.items()]
    return structs.replace(request, headers=headers, query=query), {
        **scope,
        "headers": fields,
        "query_string": query.encode("latin-1"),
        "subprotocols": [name for name in protocols.split(", ") if name],
    }


WhoAsks = Callable[[Caller], Grant | Awaitable[Grant | None] | None]


async def ask(authorize: WhoAsks, caller: Caller, now: float, seconds: float) -> Identity:
    """Return the identity that a function grants; the caller's own where it returns None. Raises `Refusal`.

    Whatever else the function does is refused: an error or a wrong value with `internal`, a late answer with
    `unavailable`.
    """
    found = await call_in_time(authorize, caller, seconds, "authorize")
    if found is None:
        return caller.identity
    if isinstance(found, Grant):
        identity = found.identity(caller.address, now)
        if not identity.lasts(now):
            raise Refusal("unauthorized", "The grant has ended: get a fresh one.")
        return identity
    text = "authorize: %s returned %s: the request is refused; return a Grant, or None, or raise Refused"
    logger.error(text, name_of(authorize), type(found).__name__)
    raise Refusal("internal", "The application failed to say who this is: its log has the cause.")


def name_of(function: Callable[..., object]) -> str:
    """Return how the source calls a function, without the address that `repr` has."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


async def call_in_time(function: Callable[[T], Any], argument: T, seconds: float, name: str) -> Any:
    """Call a function of the application: a coroutine's on the loop, any other in a thread. Raises `Refusal`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
                return await function(argument)
            found = await asyncio.to_thread(function, argument)
            return await found if inspect.isawaitable(found) else found
    except Refusal:
        raise
    except Refused as refused:
        code = refused.code if refused.code in ERRORS else "forbidden"
        raise Refusal(code, refused.message, retry_after=refused.retry_after) from None
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling()):
            raise  # not what the function has awaited was cancelled, but this task
        if not (isinstance(error, TimeoutError) and limit.expired()):
            logger.exception("%s: %s failed: the request is refused", name, name_of(function))
            raise Refusal("internal", "The application failed at this: its log has the cause.") from None
        logger.error("%s: %s did not answer within %g s: the request is refused", name, name_of(function), seconds)
        raise Refusal("unavailable", "The application did not decide in time: try again.", retry_after=1) from None
