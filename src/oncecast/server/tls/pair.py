"""One certificate and its private key, as files: whether the two can serve, for which names, and until when.

Invariant: a pair that can't serve is a `ConfigurationError` of one line that names the setting and the file, and says
what to give. A secret is in no error.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigurationError
from ..files import read_whole

__all__ = ["Pair", "read_file", "read_pair"]

PEM_BYTES = 1024 * 1024  # a chain has a few KiB
FOR_OTHERS = stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Pair:
    """`names` are the DNS names of the certificate, in lower case; `addresses` its IP addresses.

    `since` and `until` are Unix seconds. `load` puts the pair into a context.
    """

    cert: str
    key: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    kind: str
    since: float
    until: float
    load: Callable[[ssl.SSLContext], None]

    @property
    def shown(self) -> str:
        """The names and addresses in words."""
        return ", ".join((*self.names, *self.addresses)) or "no name"

    def complaints(self, now: float) -> list[str]:
        """Return a line for each thing that is wrong but does not keep the pair from serving."""
        found = []
        if self.until <= now:
            found.append(f"tls_cert: {self.cert} has expired, so clients will refuse it: renew it")
        elif self.since > now:
            found.append(f"tls_cert: {self.cert} is not valid yet, so clients will refuse it: look at this clock")
        if not (self.names or self.addresses):
            found.append(
                f"tls_cert: {self.cert} names no host (subjectAltName), so clients will refuse it: let the CA add it"
            )
        try:
            mode = os.stat(self.key).st_mode
        except OSError:  # it was there when it was read
            mode = 0
        if stat.S_ISREG(mode) and mode & FOR_OTHERS:
            found.append(
                f"tls_key: every user of this machine may open {self.key} (mode {mode & 0o777:04o}): chmod o= it"
            )
        return found


def read_pair(cert: str, key: str, password: bytes | None) -> Pair:
    """Read and check a pair. Raises `ConfigurationError`."""
    from cryptography import x509  # here, as it is large, and for TLS alone
    from cryptography.exceptions import UnsupportedAlgorithm

    # One file at a time: `ssl` would not say which of the two it means.
    chain = read_file("tls_cert", cert, "a PEM certificate chain")
    read_file("tls_key", key, "the certificate's private key in PEM")
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=chain.decode("ascii"))
    except (ssl.SSLError, ValueError, IndexError):
        raise ConfigurationError(f"tls_cert: {cert}: this is not a PEM certificate chain") from None

    def load(context: ssl.SSLContext) -> None:
        _load(context, cert, key, password)

    load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    names: list[str] = []
    addresses: list[str] = []
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [name.lower() for name in found.get_values_for_type(x509.DNSName)]
        addresses = [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    except (x509.ExtensionNotFound, ValueError):
        pass
    try:
        kind = type(leaf.public_key()).__name__
    except (UnsupportedAlgorithm, ValueError):  # OpenSSL knows it, and that is what counts
        kind = "another kind"
    return Pair(
        cert,
        key,
        tuple(names),
        tuple(addresses),
        kind,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        load,
    )


def read_file(setting: str, path: str, wanted: str) -> bytes:
    """Return the content of a file that a setting names. Raises `ConfigurationError`."""
    try:
        return read_whole(Path(path), PEM_BYTES)
    except OSError as error:
        cure = "let this user read it" if isinstance(error, PermissionError) else f"give {wanted}"
        raise ConfigurationError(f"{setting}: {path}: {error.strerror}; {cure}") from None


def _load(context: ssl.SSLContext, cert: str, key: str, password: bytes | None) -> None:
    asked = False

    def passphrase() -> bytes:
        nonlocal asked
        asked = True
        if password is None:  # OpenSSL would stop and ask at the terminal
            raise ConfigurationError(
                f"tls_key: {key} has a passphrase: give it in the file that tls_key_password_file names, or in "
                "ONCECAST_TLS_KEY_PASSWORD"
            )
        return password

    try:
        context.load_cert_chain(cert, key, password=passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"tls_key: {key} is not the private key of {cert}: give the two of a pair"
            ) from None
        if asked:
            raise ConfigurationError(f"tls_key: {key}: the passphrase is not that of this key") from None
        raise ConfigurationError(f"tls_key: {key}: this is not a PEM private key for {cert}") from None
    except OSError as error:  # a file that was there a moment ago
        raise ConfigurationError(f"tls_cert: {cert}, {key}: {error.strerror}; give the two of a pair") from None
    except ValueError:  # a passphrase of over 1,024 bytes
        raise ConfigurationError("tls_key_password_file: a passphrase has 1,024 bytes at most: give another") from None
