"""From the scope of ASGI to the request that the routes answer.

ASGI 3.0, HTTP & WebSocket 2.3 and later. The head is put together as HTTP/1.1 has it, and read by the one reader of
heads: a head that two parsers could read differently is refused here too. Invariant: `path` is below where the app is
mounted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from msgspec import structs

from ..errors import Refusal
from ..policy.limits import Limits
from ..wire import http1
from ..wire.http1_head import read_head
from ..wire.ws_handshake import VERSION

__all__ = ["AsgiSend", "Event", "Receive", "Scope", "address_of", "read_request", "server_of", "split_path"]

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
AsgiSend: TypeAlias = Callable[[Event], Awaitable[None]]

_SAFE = "/,:@!$&'()*+;=~"
# What a handshake says that the server has answered for. In HTTP/2 it is said otherwise (RFC 8441 §5), and the routes
# read it as RFC 6455 has it. A key proves that the peer speaks it, to the server alone.
_OF_THE_SERVER = frozenset(
    {b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"}
)
_HANDSHAKE = (
    (b"connection", b"Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
    (b"sec-websocket-version", VERSION.encode()),
)
# Of the connection to the server, which has the body read already (RFC 9110 §7.6.1).
_OF_THE_HOP = frozenset({b"connection", b"transfer-encoding", b"expect", b"keep-alive", b"te", b"upgrade"})


def split_path(path: str, root: str) -> tuple[str, str]:
    """Return the part of a path that is of the mount, and the path below it.

    `path` has `root` in front (ASGI 3.0 since 2.4, Starlette), or the part of it that a proxy has left, or nothing.
    """
    root = root.rstrip("/")
    while root:
        if path == root or path.startswith(root + "/"):
            return root, path[len(root) :] or "/"
        cut = root.find("/", 1)
        root = "" if cut < 0 else root[cut:]
    return "", path or "/"


def read_request(scope: Scope, limits: Limits) -> http1.Request:
    """Return the request of a scope, without its body. Raises `Refusal` where the native server would."""
    is_socket = scope["type"] == "websocket"
    prefix, path = split_path(scope["path"], scope.get("root_path", ""))
    raw = (scope.get("raw_path") or b"").partition(b"?")[0]  # some servers have the query in it
    if len(path) > 1 and path.endswith("/") and raw and not raw.endswith(b"/"):
        path = path.rstrip("/")  # Litestar adds one
    below = raw[len(prefix.encode()) :]
    if unquote_to_bytes(below) != path.encode("utf-8", "surrogatepass"):
        below = quote(path, safe=_SAFE, errors="replace").encode()
    query = scope.get("query_string", b"")
    target = below + b"?" + query if query else below
    if len(target) > limits.url_bytes:
        raise Refusal("url_too_long", f"The URL is over {limits.url_bytes} bytes: shorten it.")
    fields = list(_fields(scope, is_socket=is_socket))
    if len(fields) > limits.header_count:
        raise Refusal("headers_too_large", f"There are over {limits.header_count} headers: send fewer.")
    method = b"GET" if is_socket else scope["method"].encode("latin-1", "replace")
    lines = [b"%b %b HTTP/1.1" % (method, target), *(b"%b: %b" % field for field in fields), b"", b""]
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise Refusal("request_invalid", "A header has a line break in it.")
    if len(head) > limits.header_bytes:
        raise Refusal("headers_too_large", f"The head is over {limits.header_bytes} bytes: send less.")
    # Not kept alive, as far as the routes can see: another request may come on this connection, but not to this object.
    return structs.replace(read_head(head[:-2]).request, keep_alive=False, scheme=_scheme_of(scope))


def _fields(scope: Scope, *, is_socket: bool) -> Iterable[tuple[bytes, bytes]]:
    left_out = _OF_THE_SERVER if is_socket else _OF_THE_HOP
    has_host = False
    protocols = False
    for name, value in scope["headers"]:
        name = name.lower()
        if name in left_out or name.startswith(b":"):
            continue
        has_host = has_host or name == b"host"
        protocols = protocols or name == b"sec-websocket-protocol"
        yield name, value.strip(b" \t")
    if not has_host:  # HTTP/1.0; a name that no page can have, as browsers send theirs
        yield b"host", b"localhost"
    if is_socket:
        yield from _HANDSHAKE
        if not protocols and scope.get("subprotocols"):
            yield b"sec-websocket-protocol", ", ".join(scope["subprotocols"]).encode("latin-1", "replace")


def _scheme_of(scope: Scope) -> str:
    """Return the scheme by which a request came, behind a proxy as far as the server knows it; "" if it is unknown."""
    return {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(scope.get("scheme", ""), "")


def address_of(scope: Scope) -> str:
    """Return the address of the peer, "" where the server does not know it."""
    client = scope.get("client")
    return str(client[0] or "") if client else ""


def server_of(scope: Scope) -> str:
    """Return the address that the connection came to, "" where the server does not say it."""
    server = scope.get("server")
    return str(server[0] or "") if server and server[1] is not None else ""


def headers_of_scope(scope: Scope) -> Mapping[str, str]:
    """Return the headers of a scope by their names in lower case; repeated ones are joined, as in HTTP/1.1's head."""
    lines: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        lines.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return {name: ("; " if name == "cookie" else ", ").join(values) for name, values in lines.items()}
