"""A TLS client whose every byte the test sends itself, and certificates of any name, key and age."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.proof.tls_exchange import trusting

SECONDS = 30.0

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class TlsClient:
    """A client on a socket that does not block. Nothing is sent or read by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str | None) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.step = 1 << 20  # bytes in one send

    async def flush(self) -> None:
        """Send what OpenSSL has made, in pieces of `step` bytes."""
        loop = asyncio.get_running_loop()
        data = self.outgoing.read()
        for at in range(0, len(data), self.step):
            await loop.sock_sendall(self.sock, data[at : at + self.step])
            if self.step == 1:
                await asyncio.sleep(0)

    async def more(self) -> bool:
        """Read once from the socket; False at its end."""
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 16), SECONDS)
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()
        return bool(data)

    async def shake(self) -> None:
        """Shake hands."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.more()
            else:
                await self.flush()
                return

    async def send(self, data: bytes) -> None:
        """Send bytes, encrypted."""
        self.tls.write(data)
        await self.flush()

    async def read(self) -> bytes:
        """Read some bytes: empty at the server's close_notify. Raises `ssl.SSLEOFError` at an end without it."""
        while True:
            try:
                return self.tls.read(1 << 16)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self.more()

    async def until(self, mark: bytes) -> bytes:
        """Read up to `mark` at least."""
        data = b""
        while mark not in data:
            piece = await self.read()
            assert piece, f"the server has ended after {data!r}"
            data += piece
        return data

    async def all(self) -> bytes:
        """Read up to the server's close_notify, and then its end."""
        data = b""
        while piece := await self.read():
            data += piece
        assert not await self.more(), "there is something behind close_notify"
        return data

    async def say_goodbye(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):  # where the server's has not come yet
            self.tls.unwrap()
        await self.flush()


Dial = Callable[..., Awaitable[TlsClient]]


@pytest_asyncio.fixture
async def dial() -> AsyncIterator[Dial]:
    """Connect a client to a port. `shake=False` leaves the handshake to the test."""
    clients: list[TlsClient] = []

    async def connect(
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        name: str | None = "localhost",
        shake: bool = True,
        receive_bytes: int | None = None,
    ) -> TlsClient:
        sock = socket.socket()
        if receive_bytes is not None:  # before it connects, or it tells of a larger buffer
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        clients.append(TlsClient(sock, context or trusting(), name))
        if shake:
            await asyncio.wait_for(clients[-1].shake(), SECONDS)
        return clients[-1]

    yield connect
    for client in clients:
        client.sock.close()


Make = Callable[..., tuple[str, str]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a certificate and its key into files, and return their paths. `name` is its subject and the files' name."""

    def written(
        name: str,
        *,
        names: tuple[str, ...] = (),
        rsa_key: bool = False,
        passphrase: bytes | None = None,
        hours: float = 1,
        since: float = 1,
        signer: tuple[str, str] | None = None,
        authority: bool = False,
        folder: Path | None = None,
    ) -> tuple[str, str]:
        key: Key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        subject = issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signing = key
        if signer is not None:
            issuer = x509.load_pem_x509_certificate(Path(signer[0]).read_bytes()).subject
            loaded = serialization.load_pem_private_key(Path(signer[1]).read_bytes(), None)
            assert isinstance(loaded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
            signing = loaded
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=since))
            .not_valid_after(now + datetime.timedelta(hours=hours))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(each) for each in names]), False)
        built = builder.sign(signing, hashes.SHA256())
        encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
        place = folder or tmp_path
        cert_file, key_file = place / f"{name}-cert.pem", place / f"{name}-key.pem"
        cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        key_file.chmod(0o600)
        return str(cert_file), str(key_file)

    return written


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture
def trust() -> Callable[..., ssl.SSLContext]:
    """Make a client's context that trusts a certificate, or any."""
    return trusting
