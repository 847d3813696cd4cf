"""The sockets of a server, and what is said of a certificate that can't serve."""

from __future__ import annotations

import asyncio
import datetime
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oncecast.errors import ConfigurationError
from oncecast.server import listening
from oncecast.server.listening import PORT_TRIES, bind, tls_context
from oncecast.server.settings import Settings

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 20.0
LOCALHOST = ["127.0.0.1", "::1"]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every name stand for the addresses given."""

    def resolve(*addresses: str) -> None:
        def found(host: str, port: int, **kwargs: object) -> list[Any]:
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return resolve


def bound(host: str, port: int = 0) -> list[tuple[str, int]]:
    """Bind, and return the addresses and ports. The sockets are closed."""
    sockets = bind(host, port)
    try:
        return [sock.getsockname()[:2] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


# -- sockets


def test_a_name_is_bound_at_each_of_its_addresses(resolve: Any) -> None:
    """`localhost` is 127.0.0.1 to some clients and ::1 to others: both reach the same port."""
    resolve(*LOCALHOST, "127.0.0.1")
    addresses = bound("localhost")
    assert LOCALHOST == [host for host, _ in addresses]
    assert 1 == len({port for _, port in addresses})
    assert 0 not in {port for _, port in addresses}


@pytest.mark.parametrize("addresses", [("203.0.113.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.1")])
def test_an_address_that_is_not_here_is_left_out(resolve: Any, addresses: tuple[str, str]) -> None:
    """A machine without IPv6 serves `localhost` all the same, whichever address is named first."""
    resolve(*addresses)
    assert ["127.0.0.1"] == [host for host, _ in bound("localhost")]


def test_without_any_address_of_this_machine(resolve: Any) -> None:
    """Where nothing can be bound, the system's reason is raised."""
    resolve("203.0.113.1", "203.0.113.7")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        bind("elsewhere", 0)
    assert errno.EADDRNOTAVAIL == caught.value.errno


def test_a_port_that_is_taken_on_one_address(resolve: Any) -> None:
    """A port is ours on each address or not at all, and what was bound already is let go."""
    resolve(*LOCALHOST)
    with closing(socket.create_server(("::1", 0), family=socket.AF_INET6)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            bind("localhost", port)
        resolve("127.0.0.1")
        assert [("127.0.0.1", port)] == bound("localhost", port)


def test_a_free_port_is_looked_for_on_each_address(resolve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that was free on the first address and taken on the next is given up for another, a few times."""
    resolve(*LOCALHOST)
    tries: Iterator[int] = iter(range(PORT_TRIES - 1))
    bind_one = listening._bind

    def taken(family: int, address: Any) -> socket.socket:
        if address[1] and next(tries, None) is not None:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind_one(family, address)

    monkeypatch.setattr(listening, "_bind", taken)
    assert LOCALHOST == [host for host, _ in bound("localhost")]
    tries = iter(range(PORT_TRIES))
    with pytest.raises(OSError, match="in use"):
        bind("localhost", 0)


def test_ipv6_leaves_ipv4_to_its_own_socket(resolve: Any) -> None:
    """The wildcards of both families can be bound side by side."""
    resolve("0.0.0.0", "::")
    assert ["0.0.0.0", "::"] == [host for host, _ in bound("everywhere")]


async def test_each_address_is_served(resolve: Any, open_site: Open) -> None:
    """A server of two addresses answers at both, and has gone from both when it has stopped."""
    resolve(*LOCALHOST)
    site = await open_site(Settings(host="localhost", port=0))
    loop = asyncio.get_running_loop()
    for host in LOCALHOST:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, site.server.port))
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: t\r\n\r\n")
        assert b"HTTP/1.1 200 OK\r\n" == await asyncio.wait_for(reader.readline(), SECONDS)
        writer.close()
        await writer.wait_closed()
    await site.server.stop()
    for host in LOCALHOST:
        with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as sock:
            assert errno.ECONNREFUSED == sock.connect_ex((host, site.server.port))


# -- TLS


def make(folder: Path, name: str, passphrase: bytes | None = None) -> tuple[str, str]:
    """Write a certificate and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
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
        tls_context(Settings(tls_cert=cert, tls_key=key))
    text = str(caught.value)
    assert "\n" not in text
    assert "Errno" not in text
    assert "_ssl.c" not in text
    return text


def test_without_tls_there_is_no_context() -> None:
    """Neither file, no TLS."""
    assert tls_context(Settings()) is None


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    """A good pair serves TLS 1.2 and later, and HTTP/1.1 alone."""
    cert, key = make(tmp_path, "a")
    context = tls_context(Settings(tls_cert=cert, tls_key=key))
    assert context is not None
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
