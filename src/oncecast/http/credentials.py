"""The credentials of a request: where they may stand, and whose they are.

A token may stand in `Authorization`, in the cookie that the settings name, among the subprotocols of a WebSocket, or in
the query, for an `EventSource`; a server's key in `Authorization` only. Invariants: credentials that can't be verified
refuse the request, wherever they stand; two that prove different things do too. To take them from another place, add it
to `read_credentials`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import parse_qsl, unquote_plus

from ..errors import Refusal
from ..policy.authenticator import Authenticator
from ..policy.identity import Identity
from ..policy.origin import Headers
from ..policy.server_keys import KEY_PREFIX
from ..protocol.query import QUERY_FIELDS
from ..wire import http1

__all__ = [
    "TOKEN_PROTOCOL",
    "has_field",
    "identify",
    "of_a_user",
    "privacy_headers",
    "public_query",
    "read_credentials",
    "read_fields",
]

TOKEN_PROTOCOL = "oncecast.token."  # noqa: S105 - what a subprotocol with a token begins with
SECRET_FIELDS = ("token", "ticket")  # of a query
_NAKED = re.compile(rf"{KEY_PREFIX}|eyJ[^.]*\.[^.]*\.[^.]*$")  # a key or a JSON Web Token where a scheme should be
_PRIVACY: Headers = (("Referrer-Policy", "no-referrer"),)


def identify(
    authenticator: Authenticator,
    request: http1.Request,
    address: str,
    now: float,
    *,
    cookie: str | None,
    check: Callable[[Identity], None],
) -> Identity:
    """Return the identity of a request: anybody's if it has no credentials. Raises `Refusal`.

    `cookie` names the one that may hold a token, None where none may: see `trusts_cookies`. `check` raises `Refusal`
    for credentials that count no more. It is asked about each: of two, the one that is left out may be revoked.
    """
    identity: Identity | None = None
    for credential in read_credentials(request, cookie):
        found = authenticator.identify(credential, address, now)
        check(found)
        if identity is not None and not _agree(found, identity):
            raise Refusal("request_invalid", "The request has the credentials of two: send those of one.")
        if identity is None or (found.expires or 0.0) > (identity.expires or 0.0):
            identity = found
    return Identity(address) if identity is None else identity


def trusts_cookies(request: http1.Request, cors: Headers) -> bool:
    """Return whether a cookie may speak for a request whose `Origin` has passed with these CORS headers.

    A browser sends cookies with the requests of any page, so only those of the own origin and of one that is named in
    `origins` count. Without an `Origin`, a page of another site is known by Fetch Metadata.
    """
    if "origin" in request.headers:
        return not cors or ("Access-Control-Allow-Credentials", "true") in cors
    return request.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def read_credentials(request: http1.Request, cookie: str | None) -> tuple[str, ...]:
    """Return the different credentials of a request. Raises `Refusal` for some that are malformed."""
    return tuple(dict.fromkeys(_read(request, cookie)))


def _read(request: http1.Request, cookie: str | None) -> Iterator[str]:
    headers = request.headers
    scheme, _, given = headers.get("authorization", "").replace("\t", " ").partition(" ")  # RFC 9110 §5.6.3
    if scheme.lower() == "bearer":  # RFC 6750 §2.1; another scheme is of a proxy
        yield _present(given.strip(" "), "Authorization: Bearer has no token behind it: send one, or no header.")
    elif not given and _NAKED.match(scheme):
        raise Refusal("unauthorized", "The token has no scheme before it: write Authorization: Bearer and the token.")
    if cookie is not None and "cookie" in headers:
        yield from map(of_a_user, _cookies(headers["cookie"], cookie))
    for name in headers.get("sec-websocket-protocol", "").split(","):
        name = name.strip(" \t")
        if name.startswith(TOKEN_PROTOCOL):
            yield of_a_user(_present(name[len(TOKEN_PROTOCOL) :], "The subprotocol has no token behind it."))
    if has_field(request.query, "token"):
        for field, value in read_fields(request.query):
            if field == "token":
                yield of_a_user(_present(value, "The query has an empty token: leave it out, or fill it in."))


def _present(credential: str, message: str) -> str:
    if not credential:
        raise Refusal("unauthorized", message)
    return credential


def of_a_user(credential: str) -> str:
    """Refuse a server's key outside of the header: elsewhere is a browser's place, or one that ends in logs."""
    if credential.startswith(KEY_PREFIX):
        raise Refusal("unauthorized", "A server's key goes in the header Authorization: Bearer, and nowhere else.")
    return credential


def _cookies(header: str, name: str) -> Iterator[str]:
    """Yield the values of a cookie (RFC 6265 §5.4); one that is empty has been deleted."""
    for pair in header.split(";"):
        key, _, value = pair.strip(" \t").partition("=")
        value = value.strip('"')
        if key == name and value:
            yield value


def read_fields(query: str) -> list[tuple[str, str]]:
    """Return the fields of a query. Raises `Refusal`."""
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("request_invalid", f"The query is not UTF-8 or has over {QUERY_FIELDS} fields.") from None


def has_field(query: str, name: str) -> bool:
    """Return whether a query has a field of this name, percent-encoded or not, or maybe one that contains the name."""
    if name in query:
        return True
    return "%" in query and any(unquote_plus(field.partition("=")[0]) == name for field in query.split("&"))


def public_query(query: str) -> str:
    """Return a query without its secrets, so that nothing that remembers or logs a query has them."""
    if "token" not in query and "ticket" not in query and "%" not in query:
        return query
    fields = query.split("&")
    return "&".join(field for field in fields if unquote_plus(field.partition("=")[0]) not in SECRET_FIELDS)


def privacy_headers(request: http1.Request) -> Headers:
    """Return what the answer to a URL with secrets says: that no page passes the URL on (Referrer Policy §3.2)."""
    return () if public_query(request.query) == request.query else _PRIVACY


def _agree(one: Identity, other: Identity) -> bool:
    """Return whether two credentials prove the same: one may be the renewal of the other."""
    return (one.kind, one.subject, one.subscribe, one.publish) == (
        other.kind,
        other.subject,
        other.subscribe,
        other.publish,
    )
