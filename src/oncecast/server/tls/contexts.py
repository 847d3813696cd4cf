"""The TLS of a server: its versions and ciphers, its certificates by name, and their renewal while it serves.

Invariant: certificates that can't serve raise an error of one line, and change nothing. To change what TLS accepts,
edit `_context`.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import ConfigurationError
from ..files import read_whole
from ..settings import Settings
from .meters import TlsMeters
from .pair import PEM_BYTES, Pair, read_file, read_pair

__all__ = ["PASSWORD", "Tls", "check"]

logger = logging.getLogger("oncecast.server")

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of TLS 1.3 are all sound
PASSWORD = "ONCECAST_TLS_KEY_PASSWORD"  # noqa: S105 - the variable's name
SOON_SECONDS = 7 * 86_400.0  # a certificate that ends within that time should have been renewed
REMIND_SECONDS = 86_400.0

Signature = tuple[tuple[int, ...] | None, ...]


class Tls:
    """The TLS of accepted connections. `context` is the newest. `wall` returns Unix seconds.

    A context keeps one certificate for each kind of key, and an old one of another kind would be served for ever. So
    renewed chains have contexts of their own. Raises `ConfigurationError`.
    """

    def __init__(
        self, settings: Settings, *, meters: TlsMeters | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self.meters = TlsMeters() if meters is None else meters
        self._wall = wall
        self._settings = settings
        self._seen = _signature(settings)
        self._reminded = 0.0
        self._adopt(_Served(settings))
        for line in self.complaints():
            logger.warning("%s", line)

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next connection: it hands the handshake on to that of the name that is asked for."""
        return self._served.first

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """What is served, in the order of the settings."""
        return self._served.pairs

    def complaints(self) -> list[str]:
        """Return a line for each thing that is wrong and does not keep the server from serving."""
        return [line for pair in self.pairs for line in pair.complaints(self._wall())]

    def renew(self, settings: Settings) -> None:
        """Serve the certificates that the files have now, to new connections. Raises `ConfigurationError`."""
        self._seen = _signature(settings)
        served = _Served(settings)
        now = self._wall()
        for pair in served.pairs:
            if pair.until <= now < self._served.until:
                raise ConfigurationError(f"tls_cert: {pair.cert} has expired, and the one that is served has not")
        self._settings = settings
        self._adopt(served)

    def look(self) -> None:
        """Renew if a file has changed since the last look. An unusable one is logged and counted."""
        now = self._wall()
        if _signature(self._settings) != self._seen:
            try:
                self.renew(self._settings)
            except ConfigurationError as error:
                self.meters.renewals_refused += 1
                logger.error(
                    "the renewed certificate is not served, and the old one is until %s: %s", self.until, error
                )
            except Exception:  # a defect of our code or of a library: the old certificate can still be served
                self.meters.renewals_refused += 1
                logger.exception("the renewed certificate is not served, and the old one is until %s", self.until)
            else:
                logger.info("the renewed certificate is served: it is valid until %s", self.until)
        if self._served.until - now <= SOON_SECONDS and now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            ended = "has ended" if self._served.until <= now else "ends"
            logger.warning("a TLS certificate %s on %s: renew it", ended, self.until)

    @property
    def until(self) -> str:
        """The end of the first certificate to end, in words."""
        return _day(self._served.until)

    def _adopt(self, served: _Served) -> None:
        self._served = served
        self.meters.expires = served.until


class _Served:
    """The pairs of some settings, and a context for each set of names. Raises `ConfigurationError`."""

    def __init__(self, settings: Settings) -> None:
        password = _password(settings, os.environ)
        pairs = zip(settings.tls_cert, settings.tls_key, strict=True)
        self.pairs = tuple(read_pair(cert, key, password) for cert, key in pairs)
        self.until = min(pair.until for pair in self.pairs)
        self._named: dict[str, ssl.SSLContext] = {}
        contexts: dict[tuple[str, ...], tuple[ssl.SSLContext, list[Pair]]] = {}
        for pair in self.pairs:
            # Two of the same names with different kinds of key share a context: a client gets the one that it can use.
            context, others = contexts.setdefault(tuple(sorted(pair.names)), (_context(settings), []))
            for other in others:
                if other.kind == pair.kind:
                    raise ConfigurationError(
                        f"tls_cert: {other.cert} and {pair.cert} are for the same names ({pair.shown}): give one"
                    )
            pair.load(context)
            others.append(pair)
            for name in pair.names:
                self._named.setdefault(name, context)
        self.first = next(iter(contexts.values()))[0]
        if len(contexts) > 1:
            self.first.sni_callback = self._hand_on

    def _hand_on(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Give a handshake the context of the name that the client asks for (RFC 6066 §3), if there is one.

        A wildcard stands for one label (RFC 9525 §6.3). A client that asks for another name or for none gets the first
        certificate, and decides itself.
        """
        name = (name or "").lower().removesuffix(".")
        found = self._named.get(name) or self._named.get(f"*.{name.partition('.')[2]}")
        if found is not None:
            handshake.context = found


def check(settings: Settings) -> tuple[list[Pair], list[str]]:
    """Return the certificates of some settings, and what is wrong with them. Raises `ConfigurationError`."""
    pairs = _Served(settings).pairs
    return list(pairs), [line for pair in pairs for line in pair.complaints(time.time())]


# -- helpers


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if settings.tls_client_ca is not None:
        path = settings.tls_client_ca
        authorities = read_file("tls_client_ca", path, "the PEM certificates of the clients' CAs")
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise ConfigurationError(f"tls_client_ca: {path}: these are no PEM certificates") from None
        context.verify_mode = ssl.CERT_REQUIRED if settings.tls_client == "required" else ssl.CERT_OPTIONAL
    return context


def _password(settings: Settings, environ: Mapping[str, str]) -> bytes | None:
    if settings.tls_key_password_file is not None:
        path = settings.tls_key_password_file
        try:
            content = read_whole(Path(path), PEM_BYTES)
        except OSError as error:
            raise ConfigurationError(
                f"tls_key_password_file: {path}: {error.strerror}; give a file with the passphrase"
            ) from None
        return content.removesuffix(b"\n").removesuffix(b"\r")
    return environ[PASSWORD].encode() if environ.get(PASSWORD) else None


def _signature(settings: Settings) -> Signature:
    """Return what changes with the content of the files. A link counts as what it leads to, as certbot renews links."""
    paths = [*settings.tls_cert, *settings.tls_key, settings.tls_client_ca, settings.tls_key_password_file]
    found: list[tuple[int, ...] | None] = []
    for path in paths:
        try:
            status = None if path is None else os.stat(path)
        except OSError:
            status = None
        found.append(None if status is None else (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
