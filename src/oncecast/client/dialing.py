"""Opening a connection to a server: TCP, through an HTTP proxy where one is set, then TLS.

Owns what is the same for all connections of a client, `Endpoint`. Invariant: what the network does is raised as
`Unreachable`, or as `Refused` where another attempt can't help; it takes no longer than `Timing.connect`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UsageError
from ..wire.http1_base import encode_fields
from ..wire.http1_client import End, ResponseFailed, ResponseHead, ResponseParser
from .failures import Refused, Unreachable
from .timing import Timing
from .url import ProxyUrl, ServerUrl

__all__ = ["Endpoint", "checked_headers", "open_streams", "reason_of", "speaks_tls"]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# What the client, HTTP/1.1 or the WebSocket handshake writes itself.
RESERVED = frozenset(
    {
        *("accept", "connection", "content-length", "content-type", "expect", "host", "idempotency-key"),
        *("if-none-match", "keep-alive", "last-event-id", "oncecast-event", "proxy-authorization", "te", "trailer"),
        *("traceparent", "transfer-encoding", "upgrade"),
    }
)
READ_BYTES = 4096
TLS_PROBE_SECONDS = 5.0
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # what a proxy answers where the next attempt may succeed


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is and how to get there. `headers` go with each request; `ssl_context` is for https."""

    url: ServerUrl
    headers: tuple[tuple[str, str], ...] = ()
    ssl_context: ssl.SSLContext | None = None
    proxy: ProxyUrl | None = None


def checked_headers(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs. Raises `UsageError` for a malformed one, and for one that the client writes itself."""
    pairs = tuple(headers.items() if isinstance(headers, Mapping) else headers or ())
    for name, value in pairs:
        if not isinstance(name, str) or not isinstance(value, str):
            raise UsageError("headers: names and values are str")
        if name.lower() in RESERVED or name.lower().startswith("sec-websocket-"):
            raise UsageError(f"headers: {name} is written by the client itself: leave it out")
    encode_fields(pairs)
    return pairs


async def open_streams(endpoint: Endpoint, timing: Timing) -> Streams:
    """Connect. Raises `Unreachable`, or `Refused` for a certificate or a proxy that will refuse again."""
    url, proxy = endpoint.url, endpoint.proxy
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timing.connect):
            if proxy is None and url.scheme == "https":
                return await asyncio.open_connection(url.host, url.port, ssl=_context(endpoint))
            near = url if proxy is None else proxy
            reader, writer = await asyncio.open_connection(near.host, near.port)
            if proxy is not None:
                await _tunnel(endpoint, proxy, reader, writer)
                if url.scheme == "https":
                    await writer.start_tls(_context(endpoint), server_hostname=url.host)
            opened, writer = (reader, writer), None
            return opened
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"the certificate of {url} is not trusted: {error.verify_message}; name the file of its CA in SSL_CERT_FILE"
        ) from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA can't write
        place = f"{url}" if proxy is None else f"{url} through the proxy {proxy}"
        raise Unreachable(f"no server answers at {place}: {reason_of(error)}") from None
    finally:
        if writer is not None:  # it failed, or was cancelled
            writer.transport.abort()


async def speaks_tls(endpoint: Endpoint) -> bool:
    """Say whether what an http URL names answers a TLS handshake, so that the URL should say https.

    A server of TLS closes the connection of a plain request, most often without a word. Nothing is sent but the
    handshake, so the certificate does not matter.
    """
    if endpoint.url.scheme != "http" or endpoint.proxy is not None:
        return False
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(TLS_PROBE_SECONDS):
            _, writer = await asyncio.open_connection(endpoint.url.host, endpoint.url.port, ssl=context)
    except (OSError, UnicodeError):  # an SSLError is an OSError
        return False
    writer.transport.abort()
    return True


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    return endpoint.ssl_context or ssl.create_default_context()


async def _tunnel(
    endpoint: Endpoint, proxy: ProxyUrl, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask the proxy for a tunnel (RFC 9110 §9.3.6). Raises `Unreachable` or `Refused`, or `OSError`."""
    target = f"{endpoint.url.host_in_url}:{endpoint.url.port}"
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.authorization:
        head += f"Proxy-Authorization: {proxy.authorization}\r\n"
    writer.write(f"{head}\r\n".encode())
    parser = ResponseParser("HEAD")  # like an answer to HEAD, a 2xx to CONNECT has no body, whatever its headers say
    answer: ResponseHead | None = None
    try:
        while True:
            data = await reader.read(READ_BYTES)
            for event in parser.receive(data) if data else parser.receive_eof():
                if isinstance(event, ResponseHead):
                    answer = event
                elif isinstance(event, End):
                    assert answer is not None
                    _check_tunnel(proxy, answer.status, event.rest)
                    return
    except ResponseFailed as error:
        raise Unreachable(f"the proxy {proxy} gives no answer of HTTP: {error}") from None


def _check_tunnel(proxy: ProxyUrl, status: int, rest: bytes) -> None:
    if status in PASSING:
        raise Unreachable(f"the proxy {proxy} answers {status}")
    if status // 100 != 2:
        raise Refused(f"the proxy {proxy} refuses the connection: it answers {status}", status=status)
    if rest:
        raise Unreachable(f"the proxy {proxy} sent bytes before the server could")


def reason_of(error: OSError | UnicodeError) -> str:
    """Say what went wrong, without the address that asyncio repeats."""
    match error:
        case TimeoutError():
            return "it took too long"
        case ConnectionRefusedError():
            return "connection refused"
        case ConnectionResetError():
            return "connection reset"
        case socket.gaierror(errno=socket.EAI_AGAIN):
            return "the host name can't be looked up now"
        case socket.gaierror():
            return "the host name has no address"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "it does not speak TLS: try http:// instead of https://"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or error}"
        case UnicodeError():
            return "the host is no host name"
    return error.strerror or str(error) or type(error).__name__
