"""A certificate for localhost that the server makes itself, for development.

No CA has signed it, so a client has to be configured to trust it, once. It is kept in the user's state directory and
used again; a new one is made before it expires. Only the user can read its key (mode 0600), which is stored
nowhere else.

Invariant: the two files there are of one pair, whichever process is killed and however many processes write them at
once.
"""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...errors import ConfigurationError
from ..settings import Settings
from .pair import read_pair

__all__ = ["NAMES", "with_certificate"]

NAMES = ("localhost", "127.0.0.1", "::1")
DAYS = 397  # browsers accept no certificate that is valid for longer
RENEW_SECONDS = 30 * 86_400.0  # before its end


def with_certificate(settings: Settings, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings with the certificate that `tls` asks for, made if need be. Raises `ConfigurationError`."""
    if not settings.tls or settings.tls_cert:
        return settings
    folder = _state(environ)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of another server that starts now; the file's end releases it
            cert, key = folder / "cert.pem", folder / "key.pem"
            if not _serves(cert, key):
                _make(cert, key)
    except OSError as error:
        raise ConfigurationError(
            f"tls: {error.filename or folder}: {error.strerror}; set XDG_STATE_HOME to a directory that this user may "
            "write, or give --tls-cert and --tls-key"
        ) from None
    return msgspec.structs.replace(settings, tls_cert=(str(cert),), tls_key=(str(key),))


def _state(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_STATE_HOME", "")
    # The XDG Base Directory Specification has relative paths ignored.
    return (Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()) / "oncecast" / "localhost"


def _serves(cert: Path, key: Path) -> bool:
    try:
        pair = read_pair(str(cert), str(key), None)
    except ConfigurationError:  # there is none yet, or not of one pair
        return False
    wanted = set(NAMES) == {*pair.names, *pair.addresses}
    now = time.time()
    return wanted and pair.since <= now < pair.until - RENEW_SECONDS and not key.stat().st_mode & 0o077


def _make(cert: Path, key: Path) -> None:
    from cryptography import x509  # here, as it is large
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    made = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Oncecast development, localhost")])
    names: list[x509.GeneralName] = [x509.DNSName(NAMES[0])]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in NAMES[1:]]
    now = datetime.datetime.now(datetime.UTC)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    identifier = x509.SubjectKeyIdentifier.from_public_key(made.public_key())
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # a container's clock may be a little behind
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)  # it can sign no other
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(made, hashes.SHA256())
    )
    _write(
        key,
        made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    _write(cert, built.public_bytes(serialization.Encoding.PEM))


def _write(path: Path, content: bytes) -> None:
    """Write a file of this user's alone, whole or not at all."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)
