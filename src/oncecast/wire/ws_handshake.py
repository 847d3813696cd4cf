"""The opening handshake of RFC 6455 §4, both ends: the request that asks for a WebSocket, and the answer to it.

Owns the meaning of the handshake's headers, not their parsing: `headers` maps lower-case names to values, repeated
headers joined with ", ". Invariants: only what §4.2.1 and §4.1 allow is accepted; no argument can put another line into
a head. To negotiate an extension, read `Upgrade.extensions` and give the answer's header to `accept_response` as an
extra one; a client passes the names that it offered to `check_response`, and reads `answered_extensions`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..errors import OncecastError, Refusal, UsageError

__all__ = [
    "GUID",
    "VERSION",
    "Extensions",
    "HandshakeFailed",
    "Upgrade",
    "accept_key",
    "accept_response",
    "answered_extensions",
    "check_response",
    "new_key",
    "parse_upgrade",
    "request_bytes",
    "wants_upgrade",
]

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
VERSION = "13"  # RFC 6455 §4.1

_KEY = re.compile(r"[A-Za-z0-9+/]{22}==", re.ASCII)  # base64 of 16 bytes
_TCHAR = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110 §5.6.2
_TOKEN = re.compile(rf"{_TCHAR}+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5: neither CR, LF nor NUL
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 6455 §9.1, in the grammar of RFC 2616 §2.1, where spaces may stand between any two words. What a quoted string
# says must be a token.
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TCHAR}+)(?:[ \t]*=[ \t]*(?:({_TCHAR}+)|"((?:\\?{_TCHAR})+)"))?', re.ASCII)
_BETWEEN = re.compile(r"[ \t]*(?:,[ \t,]*|$)")  # an element that is empty does not count

Extensions = tuple[tuple[str, tuple[tuple[str, str | None], ...]], ...]
"""The extensions of a header, in order: each one's name, and its parameters with their values, None without one."""


class HandshakeFailed(OncecastError):
    """The server did not open the WebSocket. `status` is the HTTP status of its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A valid request for a WebSocket.

    `protocols` are the subprotocols and `extensions` the offered extensions, each in the client's order of preference;
    `origin` is the page that asks, where a browser does.
    """

    key: str
    protocols: tuple[str, ...]
    extensions: Extensions
    origin: str | None


def accept_key(key: str) -> str:
    """Return the `Sec-WebSocket-Accept` that answers `key` (RFC 6455 §4.2.2)."""
    # SHA-1 is what the protocol says; it proves that the server speaks it, and protects nothing.
    return base64.b64encode(hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()


def new_key() -> str:
    """Return a fresh random `Sec-WebSocket-Key` (RFC 6455 §4.1)."""
    return base64.b64encode(os.urandom(16)).decode()


# -- the server's end


def wants_upgrade(headers: Mapping[str, str]) -> bool:
    """Return whether a request asks for a WebSocket; `parse_upgrade` says whether it does so correctly."""
    upgrade = headers.get("upgrade")
    return upgrade is not None and "websocket" in _words(upgrade)


def parse_upgrade(method: str, version: tuple[int, int], headers: Mapping[str, str]) -> Upgrade:
    """Read a request for a WebSocket (RFC 6455 §4.2.1).

    Raises `Refusal`: `upgrade_required` for another version than 13, to be answered with `Sec-WebSocket-Version: 13`
    (§4.4), else `request_invalid`.
    """
    if method != "GET":
        raise _invalid("The method of a WebSocket handshake is GET.")
    if version < (1, 1):
        raise _invalid("A WebSocket handshake needs HTTP/1.1.")
    if not wants_upgrade(headers):
        raise _invalid("Send Upgrade: websocket.")
    if "upgrade" not in _words(headers.get("connection", "")):
        raise _invalid("Send Connection: Upgrade.")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        # Its bytes would be read as frames.
        raise _invalid("A WebSocket handshake has no body.")
    asked = headers.get("sec-websocket-version", "")
    if "," in asked:
        raise _invalid("Send one Sec-WebSocket-Version.")
    if asked != VERSION:
        raise Refusal("upgrade_required", f"Send Sec-WebSocket-Version: {VERSION}.")
    key = headers.get("sec-websocket-key", "")
    if _KEY.fullmatch(key) is None:
        raise _invalid("Send one Sec-WebSocket-Key: the base64 of 16 random bytes.")
    protocols = _items(headers.get("sec-websocket-protocol", ""))
    if len(set(protocols)) != len(protocols) or not all(map(_TOKEN.fullmatch, protocols)):
        raise _invalid("Send each subprotocol once, as a token.")  # RFC 6455 §4.1, 10
    extensions = _extensions(headers)
    if extensions is None:
        raise _invalid("Send Sec-WebSocket-Extensions as a list of name; parameter=value.")
    return Upgrade(key, protocols, extensions, headers.get("origin"))


def accept_response(upgrade: Upgrade, protocol: str | None, extra: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the whole answer that opens the WebSocket (RFC 6455 §4.2.2).

    Raises `UsageError` for a `protocol` that the client did not offer, and for an `extra` header that is malformed.
    """
    lines = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(upgrade.key)),
    ]
    if protocol is not None:
        if protocol not in upgrade.protocols:
            raise UsageError(f"The client did not offer the subprotocol {protocol!r}.")
        lines.append(("Sec-WebSocket-Protocol", protocol))
    return _head("HTTP/1.1 101 Switching Protocols", [*lines, *extra])


# -- the client's end


def request_bytes(
    host: str,
    target: str,
    key: str,
    *,
    protocols: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """Return the whole request for a WebSocket (RFC 6455 §4.1).

    `host` is the Host header, with the port if it is not the scheme's; `target` is the path and query. Raises
    `UsageError` for what can't stand in a request.
    """
    if _VISIBLE.fullmatch(host) is None:
        raise UsageError(f"{host!r} is not a host.")
    if not target.startswith("/") or _VISIBLE.fullmatch(target) is None:
        raise UsageError(f"{target!r} is not a path: it begins with / and is percent-encoded.")
    if _KEY.fullmatch(key) is None:
        raise UsageError("The key is the base64 of 16 bytes: use new_key().")
    if len(set(protocols)) != len(protocols) or not all(map(_TOKEN.fullmatch, protocols)):
        raise UsageError("Each subprotocol is a token and stands once.")
    lines = [
        ("Host", host),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Version", VERSION),
    ]
    if protocols:
        lines.append(("Sec-WebSocket-Protocol", ", ".join(protocols)))
    return _head(f"GET {target} HTTP/1.1", [*lines, *headers])


def check_response(
    status: int, headers: Mapping[str, str], key: str, protocols: Sequence[str], *, extensions: Collection[str] = ()
) -> str | None:
    """Check the answer to `request_bytes` and return the subprotocol, `None` if the server chose none.

    `extensions` are the names of those that were offered. Raises `HandshakeFailed` (RFC 6455 §4.1, the client's last
    six steps).
    """
    if status != 101:
        raise HandshakeFailed(status, f"The server answered {status} instead of opening a WebSocket.")
    if headers.get("upgrade", "").lower() != "websocket":
        raise HandshakeFailed(status, "The answer lacks Upgrade: websocket.")
    if "upgrade" not in _words(headers.get("connection", "")):
        raise HandshakeFailed(status, "The answer lacks Connection: Upgrade.")
    if headers.get("sec-websocket-accept", "").strip() != accept_key(key):
        raise HandshakeFailed(
            status, "Sec-WebSocket-Accept does not match the key: check for a cache or a proxy before the server."
        )
    if not {name for name, _ in answered_extensions(headers)} <= {*extensions}:
        raise HandshakeFailed(status, "The server uses an extension that was not offered.")
    protocol = headers.get("sec-websocket-protocol")
    if protocol is not None and protocol not in protocols:
        raise HandshakeFailed(status, f"The server chose a subprotocol that was not offered: {protocol[:64]!r}.")
    return protocol


def answered_extensions(headers: Mapping[str, str]) -> Extensions:
    """Return the extensions of a 101 answer. Raises `HandshakeFailed` if they are malformed."""
    extensions = _extensions(headers)
    if extensions is None:
        raise HandshakeFailed(101, "The answer's Sec-WebSocket-Extensions is malformed.")
    return extensions


# -- helpers


def _extensions(headers: Mapping[str, str]) -> Extensions | None:
    """Read Sec-WebSocket-Extensions (RFC 6455 §9.1); None if it is malformed."""
    value = headers.get("sec-websocket-extensions", "").strip(" \t,")
    found = []
    at = 0
    while at < len(value):
        name = _TOKEN.match(value, at)
        if name is None:
            return None
        at = name.end()
        parameters: list[tuple[str, str | None]] = []
        while parameter := _PARAMETER.match(value, at):
            at = parameter.end()
            quoted = parameter[3]
            parameters.append((parameter[1], parameter[2] if quoted is None else quoted.replace("\\", "")))
        between = _BETWEEN.match(value, at)
        if between is None:
            return None
        at = between.end()
        found.append((name[0], tuple(parameters)))
    return tuple(found)


def _items(value: str) -> tuple[str, ...]:
    """Return the elements of a list; empty ones don't count (RFC 9110 §5.6.1.2)."""
    return tuple(item for part in value.split(",") if (item := part.strip(" \t")))


def _words(value: str) -> tuple[str, ...]:
    """Return the elements of a list whose case does not matter, in lower case."""
    return _items(value.lower())


def _invalid(message: str) -> Refusal:
    return Refusal("request_invalid", message)


def _head(start: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return a message head. Raises `UsageError` where a header could begin another line."""
    lines = [start]
    for name, value in headers:
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise UsageError(f"A header is malformed: {name!r}: {value!r}.")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
