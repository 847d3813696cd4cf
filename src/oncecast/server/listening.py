"""What a server listens with: its sockets, and the TLS on them.

Invariant: every address of the host is bound, with one port, or `OSError` raised and nothing left bound; and a
certificate that can't serve is told in one line. To change what TLS accepts, edit `tls_context`.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from .settings import Settings

PORT_TRIES = 8  # for a port that is free on each address; nearly always the first one is
ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})  # as of ::1 where there is no IPv6

_Address = tuple[int, tuple[Any, ...]]  # the family, and what `socket.bind` takes


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket for each address of `host`, all with the same port, which for 0 is any free one.

    An address that this machine does not have is left out where there is another. Raises `OSError`.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[_Address] = list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))
    tries = 1 if port else PORT_TRIES
    while True:
        tries -= 1
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or tries == 0:
                raise


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what TLS is spoken with, or None without it. Raises `ConfigurationError`."""
    cert, key = settings.tls_cert, settings.tls_key
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # One file at a time: `ssl` would not say which of the two it means.
    chain = _read("tls_cert", cert, "a PEM certificate chain")
    _read("tls_key", key, "the certificate's private key in PEM")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=chain.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise ConfigurationError(f"tls_cert: {cert}: this is not a PEM certificate chain") from None
    try:
        context.load_cert_chain(cert, key, password=lambda: _no_passphrase(key))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"tls_key: {key} is not the private key of {cert}: give the two of a pair"
            ) from None
        raise ConfigurationError(f"tls_key: {key}: this is not a PEM private key for {cert}") from None
    return context


# Helpers ---------------------------------------------------------------------------------------------------------


def _bind_all(addresses: Sequence[_Address], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, (host, _, *rest) in addresses:
            try:
                bound.append(_bind(family, (host, port, *rest)))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
            else:
                port = bound[-1].getsockname()[1]
        if absent is not None and not bound:
            raise absent
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bind(family: int, address: tuple[Any, ...]) -> socket.socket:
    # The protocol is named: asyncio sets TCP_NODELAY on no other socket.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # IPv4 has a socket of its own, whatever this system's default is
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _read(setting: str, path: str, wanted: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path}: {error.strerror}; give {wanted}") from None


def _no_passphrase(key: str) -> str:
    """Refuse: OpenSSL would stop and ask at the terminal."""
    raise ConfigurationError(f"tls_key: {key} has a passphrase, which a server can't ask for: give the key without one")
