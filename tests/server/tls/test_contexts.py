"""The TLS of a server: a renewed certificate, and what is said of one that can't serve."""

from __future__ import annotations

import datetime
import shutil
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from oncecast.errors import ConfigurationError
from oncecast.server.settings import Settings
from oncecast.server.tls import Tls


def make(folder: Path, name: str, passphrase: bytes | None = None, *, rsa_key: bool = False) -> tuple[str, str]:
    """Write a certificate and its key; return their paths."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
    if rsa_key:
        key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    cert_file, key_file = folder / f"{name}-cert.pem", folder / f"{name}-key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return str(cert_file), str(key_file)


def mistake(cert: str, key: str) -> str:
    """Return what is said of a certificate and a key, which is one line."""
    with pytest.raises(ConfigurationError) as caught:
        Tls(Settings(tls_cert=cert, tls_key=key))
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    assert "_ssl.c" not in text
    return text


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    """A good pair serves TLS 1.2 and later, and HTTP/1.1 alone."""
    cert, key = make(tmp_path, "a")
    context = Tls(Settings(tls_cert=cert, tls_key=key)).context
    assert ssl.TLSVersion.TLSv1_2 == context.minimum_version


def test_each_mistake_with_certificates_has_its_sentence(tmp_path: Path) -> None:
    """The sentence names the setting and the file, and says what to give."""
    cert, key = make(tmp_path, "a")
    _, other = make(tmp_path, "b")
    _, locked = make(tmp_path, "c", b"passphrase")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"\xff nonsense")
    missing = str(tmp_path / "missing.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    text = "No such file or directory; give"
    assert f"tls_cert: {missing}: {text} a PEM certificate chain" == mistake(missing, key)
    assert f"tls_key: {missing}: {text} the certificate's private key in PEM" == mistake(cert, missing)
    assert f"tls_cert: {tmp_path}: Is a directory; give a PEM certificate chain" == mistake(str(tmp_path), key)
    for bad in (str(nonsense), str(broken), key):
        assert f"tls_cert: {bad}: this is not a PEM certificate chain" == mistake(bad, key)
    for bad in (str(nonsense), cert):
        assert f"tls_key: {bad}: this is not a PEM private key for {cert}" == mistake(cert, bad)
    assert f"tls_key: {other} is not the private key of {cert}: give the two of a pair" == mistake(cert, other)
    assert mistake(cert, locked).startswith(f"tls_key: {locked} has a passphrase, ")


# -- renewing


def served(tls: Tls, name: str | None = "localhost") -> str:
    """Shake hands with a client that takes any certificate, and return whose it got."""
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(down, up, server_hostname=name)
    server = tls.context.wrap_bio(up, down, server_side=True)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    found = client.getpeercert(binary_form=True)
    assert found is not None
    names = x509.load_der_x509_certificate(found).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value)


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("old_is_rsa, new_is_rsa", [(False, False), (True, False), (False, True)])
def test_a_renewed_certificate_is_the_only_one(
    tmp_path: Path, old_is_rsa: bool, new_is_rsa: bool, name: str | None
) -> None:
    """After it, no client gets the old one, also where the new one has another kind of key."""
    files = make(tmp_path, "old", rsa_key=old_is_rsa)
    settings = Settings(tls_cert=files[0], tls_key=files[1])
    tls = Tls(settings)
    assert "old" == served(tls, name)
    for new, place in zip(make(tmp_path, "new", rsa_key=new_is_rsa), files, strict=True):
        shutil.copy(new, place)
    assert "old" == served(tls, name)
    tls.renew(settings)
    assert "new" == served(tls, name)


def test_one_that_cant_serve_changes_nothing(tmp_path: Path) -> None:
    """With a renewed certificate that does not fit its key, the old pair is served on."""
    cert, key = make(tmp_path, "old")
    settings = Settings(tls_cert=cert, tls_key=key)
    tls = Tls(settings)
    shutil.copy(make(tmp_path, "new")[0], cert)
    with pytest.raises(ConfigurationError, match="not the private key"):
        tls.renew(settings)
    assert "old" == served(tls)
