"""The TLS of a server: its versions, and its certificate, which can be renewed while it serves.

Invariant: a certificate that can't serve raises an error of one line, and changes nothing. To change what TLS accepts,
edit `_context`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ...errors import ConfigurationError
from ..files import read_whole
from ..settings import Settings

__all__ = ["Tls"]

PEM_BYTES = 1024 * 1024  # a chain has a few KiB
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of TLS 1.3 are all sound


class Tls:
    """`context` is what connections are accepted with, for as long as the server lives. Raises `ConfigurationError`.

    A context keeps one certificate for each kind of key, so an old one of another kind would be served for ever. A
    renewed chain therefore has a context of its own, and each handshake is handed to the newest.
    """

    def __init__(self, settings: Settings) -> None:
        self.context = self._newest = _context(settings)
        self.context.sni_callback = self._hand_on  # is called for a client that names no server, too

    def renew(self, settings: Settings) -> None:
        """Serve the chain that is in the files now, to new connections. Raises `ConfigurationError`."""
        self._newest = _context(settings)

    def _hand_on(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = self._newest


def _context(settings: Settings) -> ssl.SSLContext:
    cert, key = settings.tls_cert, settings.tls_key
    assert cert is not None
    assert key is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
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


def _read(setting: str, path: str, wanted: str) -> bytes:
    try:
        return read_whole(Path(path), PEM_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path}: {error.strerror}; give {wanted}") from None


def _no_passphrase(key: str) -> str:
    """Refuse: OpenSSL would stop and ask at the terminal."""
    raise ConfigurationError(f"tls_key: {key} has a passphrase, which a server can't ask for: give the key without one")
