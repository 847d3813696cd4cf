"""The certificates of a server: by the name that a client asks for, renewed, of clients, and those that can't serve."""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from oncecast.errors import ConfigurationError
from oncecast.server.settings import Settings
from oncecast.server.tls import Tls, check
from oncecast.server.tls.contexts import PASSWORD

if TYPE_CHECKING:
    from tests.server.conftest import Open
    from tests.server.tls.conftest import Dial, Make

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def of(*pairs: tuple[str, str], **others: Any) -> Settings:
    """Return the settings of some pairs."""
    return Settings(port=0, tls_cert=tuple(c for c, _ in pairs), tls_key=tuple(k for _, k in pairs), **others)


def subject(der: bytes | None) -> str:
    """Return the name of a certificate's subject."""
    assert der is not None
    names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value)


def served(tls: Tls, name: str | None = "localhost", *, ciphers: str | None = None) -> str:
    """Shake hands with a client that takes any certificate, and return whose it got."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ciphers is not None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(down, up, server_hostname=name)
    server = tls.context.wrap_bio(up, down, server_side=True)
    for end in (client, server, client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return subject(client.getpeercert(binary_form=True))


def mistake(settings: Settings) -> str:
    """Return what is said of certificates that can't serve, which is one line."""
    with pytest.raises(ConfigurationError) as caught:
        check(settings)
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    assert "_ssl.c" not in text
    return text


# -- one pair


def test_each_mistake_with_certificates_has_its_sentence(tmp_path: Path, make: Make) -> None:
    """The sentence names the setting and the file, and says what to give."""
    cert, key = make("a")
    _, other = make("b")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"\xff nonsense")
    missing = str(tmp_path / "missing.pem")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    text = "No such file or directory; give"
    assert f"tls_cert: {missing}: {text} a PEM certificate chain" == mistake(of((missing, key)))
    assert f"tls_key: {missing}: {text} the certificate's private key in PEM" == mistake(of((cert, missing)))
    directory = str(tmp_path)
    assert f"tls_cert: {directory}: Is a directory; give a PEM certificate chain" == mistake(of((directory, key)))
    for bad in (str(nonsense), str(broken), key):
        assert f"tls_cert: {bad}: this is not a PEM certificate chain" == mistake(of((bad, key)))
    for bad in (str(nonsense), cert):
        assert f"tls_key: {bad}: this is not a PEM private key for {cert}" == mistake(of((cert, bad)))
    assert f"tls_key: {other} is not the private key of {cert}: give the two of a pair" == mistake(of((cert, other)))


def test_a_key_with_a_passphrase(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A passphrase comes from a file or the environment, is never asked for, and is in no error."""
    monkeypatch.delenv(PASSWORD, raising=False)
    cert, key = make("a", passphrase=b"open sesame")
    assert (
        f"tls_key: {key} has a passphrase: give it in the file that tls_key_password_file names, or in {PASSWORD}"
    ) == mistake(of((cert, key)))
    secret = tmp_path / "secret"
    for content in ("open sesame", "open sesame\n", "open sesame\r\n"):
        secret.write_text(content, newline="")
        check(of((cert, key), tls_key_password_file=str(secret)))
    monkeypatch.setenv(PASSWORD, "open sesame")
    check(of((cert, key)))
    wrong = f"tls_key: {key}: the passphrase is not that of this key"
    monkeypatch.setenv(PASSWORD, "sesame")
    assert wrong == mistake(of((cert, key)))
    secret.write_text("open sesame \n")
    assert wrong == mistake(of((cert, key), tls_key_password_file=str(secret)))
    secret.write_text("x" * 2000)
    text = "tls_key_password_file: a passphrase has 1,024 bytes at most: give another"
    assert text == mistake(of((cert, key), tls_key_password_file=str(secret)))
    gone = str(tmp_path / "gone")
    text = f"tls_key_password_file: {gone}: No such file or directory; give a file with the passphrase"
    assert text == mistake(of((cert, key), tls_key_password_file=gone))


def test_what_does_not_keep_a_pair_from_serving_is_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Dates, a missing name, and a key that others may read."""
    fine = make("fine", names=("fine.example",))
    nameless = make("nameless")
    expired = make("expired", names=("expired.example",), hours=-0.5)
    early = make("early", names=("early.example",), since=-0.5)
    open_ = make("open", names=("open.example",))
    os.chmod(open_[1], 0o644)
    lines = [
        f"tls_cert: {nameless[0]} names no host (subjectAltName), so clients will refuse it: let the CA add it",
        f"tls_cert: {expired[0]} has expired, so clients will refuse it: renew it",
        f"tls_cert: {early[0]} is not valid yet, so clients will refuse it: look at this clock",
        f"tls_key: every user of this machine may open {open_[1]} (mode 0644): chmod o= it",
    ]
    settings = of(fine, nameless, expired, early, open_)
    pairs, complaints = check(settings)
    assert lines == complaints
    assert ["fine.example", "no name"] == [pair.shown for pair in pairs[:2]]
    assert not caplog.records
    Tls(settings)
    assert lines == [record.getMessage() for record in caplog.records]
    os.chmod(fine[1], 0o640)  # a group of its own, as Debian's ssl-cert is
    assert [] == check(of(fine))[1]


# -- several


def test_a_client_gets_the_certificate_for_the_name_it_asks_for(make: Make) -> None:
    """Exact names go before wildcards, which stand for one label; for other names, and without one, it is the first."""
    tls = Tls(
        of(
            make("first", names=("a.example", "127.0.0.1")),
            make("wild", names=("*.b.example", "b.example")),
            make("exact", names=("x.b.example",)),
        )
    )
    expected = {
        "a.example": "first",
        "A.Example": "first",
        "b.example": "wild",
        "y.b.example": "wild",
        "Y.B.EXAMPLE": "wild",
        "x.b.example": "exact",
        "z.y.b.example": "first",
        "c.example": "first",
        "example": "first",
        "127.0.0.1": "first",
        "*.b.example": "wild",
        None: "first",
    }
    assert expected == {name: served(tls, name) for name in expected}


def test_two_kinds_of_key_for_one_name(make: Make) -> None:
    """A client gets the one that it can use; two of one kind would leave one unused, so that is refused."""
    names = ("a.example", "b.example")
    small, old = make("small", names=names), make("old", names=names[::-1], rsa_key=True)
    tls = Tls(of(small, old))
    assert "small" == served(tls, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    assert "old" == served(tls, ciphers="ECDHE-RSA-AES128-GCM-SHA256")
    again = make("again", names=names)
    expected = f"tls_cert: {small[0]} and {again[0]} are for the same names (a.example, b.example): give one"
    assert expected == mistake(of(small, again))


async def test_each_name_on_one_port(open_site: Open, dial: Dial, make: Make) -> None:
    """The same over a socket, and the requests are answered alike."""
    site = await open_site(of(make("one", names=("a.example",)), make("two", names=("b.example",))))
    for name, expected in (("a.example", "one"), ("b.example", "two"), ("c.example", "one"), (None, "one")):
        client = await dial(site.server.port, name=name)
        assert expected == subject(client.tls.getpeercert(binary_form=True))
        await client.send(HEALTH)
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


# -- renewing


@pytest.mark.parametrize("name", ["localhost", None])
@pytest.mark.parametrize("old_is_rsa, new_is_rsa", [(False, False), (True, False), (False, True)])
def test_a_renewed_certificate_is_the_only_one(
    make: Make, old_is_rsa: bool, new_is_rsa: bool, name: str | None
) -> None:
    """After it, no client gets the old one, also where the new one has another kind of key."""
    files = make("old", rsa_key=old_is_rsa)
    tls = Tls(of(files))
    assert "old" == served(tls, name)
    for new, place in zip(make("new", rsa_key=new_is_rsa), files, strict=True):
        shutil.copy(new, place)
    assert "old" == served(tls, name)
    tls.renew(of(files))
    assert "new" == served(tls, name)


def test_a_look_renews_what_has_changed(tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Links that lead to other files, as certbot leaves them, count as a change; without one nothing is read."""
    caplog.set_level(logging.INFO, "oncecast.server")
    links = tmp_path / "live.pem", tmp_path / "live-key.pem"
    for link, file in zip(links, make("old", names=("a",)), strict=True):
        link.symlink_to(file)
    tls = Tls(of((str(links[0]), str(links[1]))))
    first, context = tls.meters.expires, tls.context
    tls.look()
    assert context is tls.context
    new = make("new", names=("a",), hours=2000)
    for link, file in zip(links, new, strict=True):
        link.unlink()
        link.symlink_to(file)
    tls.look()
    assert "new" == served(tls)
    assert tls.meters.expires > first + 1000
    until = datetime.datetime.fromtimestamp(tls.meters.expires, datetime.UTC)
    assert f"the renewed certificate is served: it is valid until {until:%Y-%m-%d %H:%M UTC}" in caplog.text
    assert 0 == tls.meters.renewals_refused


@pytest.mark.parametrize("fault", ["another key", "no file", "expired"])
def test_a_renewal_that_cant_serve(make: Make, caplog: pytest.LogCaptureFixture, fault: str) -> None:
    """The old pair is served on, and that is logged and counted once. Once it is repaired the new one is served."""
    cert, key = make("old", names=("a",), hours=2000)
    tls = Tls(of((cert, key)))
    expires = tls.meters.expires
    new = make("new", names=("a",), hours=-0.5 if fault == "expired" else 3000)
    Path(cert).unlink()
    if fault != "no file":
        shutil.copy(new[0], cert)
    if fault == "expired":
        shutil.copy(new[1], key)
    tls.look()
    tls.look()
    assert "old" == served(tls)
    assert (1, expires) == (tls.meters.renewals_refused, tls.meters.expires)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"the renewed certificate is not served, and the old one is until {tls.until}: "
    )
    for part, place in zip(make("repaired", names=("a",), hours=4000), (cert, key), strict=True):
        shutil.copy(part, place)
    tls.look()
    assert "repaired" == served(tls)


def test_a_defect_at_a_renewal(make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look does not fail, so the server's task goes on and the old pair is served."""
    cert, key = make("old", names=("a",))
    tls = Tls(of((cert, key)))
    os.utime(cert, (1, 1))

    def fail(*args: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("oncecast.server.tls.contexts.read_pair", fail)
    tls.look()
    assert "old" == served(tls)
    assert 1 == tls.meters.renewals_refused
    assert "a defect" in caplog.text


def test_a_certificate_that_ends_soon(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """The log says so a week before, once a day, and when it has ended."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    tls = Tls(of(make("a", names=("a",), hours=10 * 24)), wall=lambda: now)
    for _ in range(12):
        for _ in range(24):
            tls.look()
            now += 3600.0
    lines = [record.getMessage() for record in caplog.records]
    assert 9 == len(lines)
    assert f"a TLS certificate ends on {tls.until}: renew it" == lines[0] == lines[6]
    assert f"a TLS certificate has ended on {tls.until}: renew it" == lines[8]


# -- certificates of clients


def client_of(signed: tuple[str, str] | None) -> ssl.SSLContext:
    """Return a client's context with a certificate, or without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if signed is not None:
        context.load_cert_chain(*signed)
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("wanted", ["required", "optional"])
async def test_certificates_of_clients(
    open_site: Open, dial: Dial, make: Make, wanted: str, version: ssl.TLSVersion
) -> None:
    """One of the CA is let in, one of another is not, and without one it is as `tls_client` says."""
    authority, stranger = make("authority", authority=True), make("stranger", authority=True)
    own = make("client", signer=authority)
    site = await open_site(of(make("server"), tls_client_ca=authority[0], tls_client=wanted))

    async def ask(signed: tuple[str, str] | None) -> bool:
        context = client_of(signed)
        context.minimum_version = context.maximum_version = version
        try:
            client = await dial(site.server.port, context)
            await client.send(HEALTH)
            return (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        except ssl.SSLError as error:
            return "alert" not in str(error).lower()

    assert await ask(own)
    assert not await ask(make("foreign", signer=stranger))
    assert (wanted == "optional") is await ask(None)


def test_cas_that_are_none(tmp_path: Path, make: Make) -> None:
    """The sentence names the file."""
    bad = tmp_path / "bad.pem"
    bad.write_text("nonsense")
    assert f"tls_client_ca: {bad}: these are no PEM certificates" == mistake(of(make("a"), tls_client_ca=str(bad)))
    gone = str(tmp_path / "gone.pem")
    text = f"tls_client_ca: {gone}: No such file or directory; give the PEM certificates of the clients' CAs"
    assert text == mistake(of(make("a"), tls_client_ca=gone))


def test_what_needs_no_tls_does_not_load_it() -> None:
    """A server without TLS does not pay for reading certificates."""
    code = "import sys, oncecast.server.server; sys.exit('cryptography' in sys.modules)"
    assert 0 == subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode
