"""The issuer's keys: fetched off the loop, rotated, held through an outage, and never by a token's wish."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import threading
import time
import urllib.error
from collections.abc import AsyncIterator, Callable
from typing import Any

import jwt
import pytest
import pytest_asyncio

from oncecast.errors import ConfigurationError
from oncecast.server import jwks
from oncecast.server.jwks import RemoteKeys, check_url, get_whole
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, Settings
from tests.token_rig import private_key, token

SECONDS = 30.0


def jwk_set(**keys: str) -> bytes:
    """Return a set: algorithms by kid."""
    listed = []
    for kid, name in keys.items():
        key = jwt.get_algorithm_by_name(name).to_jwk(private_key(name).public_key(), as_dict=True)
        listed.append({**key, "kid": kid})
    return json.dumps({"keys": listed}).encode()


class Issuer:
    """A server of keys on loopback. `answer` makes the raw answer to a request."""

    def __init__(self) -> None:
        self.requests = 0
        self.content = jwk_set(a="RS256")
        self.answer: Callable[[], bytes] | None = None
        self.hold = False
        self._server: asyncio.Server | None = None
        self._held: list[asyncio.StreamWriter] = []
        self._talks: list[asyncio.Task[None]] = []

    async def start(self) -> Issuer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/jwks"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:  # also one that has sent no request yet
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        for writer in self._held:
            writer.close()
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._held.append(writer)
        self._talks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.content)}\r\nConnection: close\r\n\r\n".encode()
        writer.write(head + self.content if self.answer is None else self.answer())
        if not self.hold:
            writer.close()


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """An issuer that publishes one key."""
    issuer = await Issuer().start()
    yield issuer
    await issuer.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that the other side makes true."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await asyncio.sleep(0.01)


def settings_of(issuer: Issuer) -> Settings:
    """Return the settings of a server that trusts an issuer."""
    return Settings(port=0, auth=AuthSettings(jwks_url=issuer.url))


def signed(name: str, kid: str) -> str:
    """Return a token from now on."""
    now = time.time()
    return token({"sub": "ann", "iat": now, "exp": now + 60}, key=private_key(name), algorithm=name, head={"kid": kid})


async def ask(server: Server, text: str) -> int:
    """Return the status of a poll with a token."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /v1/channels/c HTTP/1.0\r\nAuthorization: Bearer {text}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


async def test_a_server_verifies_by_the_keys_of_its_issuer(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotation: an unknown kid is refused, and brings the new set; what is not in that is refused from then on."""
    monkeypatch.setattr(jwks, "LEAST_SECONDS", 0.0)
    server = Server(settings_of(issuer))
    await server.start()
    try:
        await until(lambda: server.app.issuer is not None and server.app.issuer.fetched == 1)
        assert 200 == await ask(server, signed("RS256", "a"))
        issuer.content = jwk_set(b="ES256")
        assert 401 == await ask(server, signed("ES256", "b"))
        await until(lambda: server.app.issuer is not None and server.app.issuer.fetched == 2)
        assert [200, 401] == [await ask(server, signed(*each)) for each in (("ES256", "b"), ("RS256", "a"))]
        assert 2 <= server.app.authentications.verified
    finally:
        await server.stop(0)


async def test_an_outage(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The set that was fetched holds; before the first one, a client is asked to try again."""
    monkeypatch.setattr(jwks, "RETRY_SECONDS", 0.01)
    issuer.answer = lambda: b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    server = Server(settings_of(issuer))
    await server.start()
    try:
        remote = server.app.issuer
        assert remote is not None
        await until(lambda: remote.failed > 1)
        assert 503 == await ask(server, signed("RS256", "a"))
        issuer.answer = None
        await until(lambda: remote.fetched == 1)
        issuer.answer = lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        failed = remote.failed
        monkeypatch.setattr(jwks, "LEAST_SECONDS", 0.0)
        remote.hurry()
        await until(lambda: remote.failed > failed)
        assert 200 == await ask(server, signed("RS256", "a"))
    finally:
        await server.stop(0)


async def test_other_settings_at_a_reload(issuer: Issuer) -> None:
    """The keys of another URL are forgotten at once; those of the same one are kept."""
    server = Server(settings_of(issuer))
    await server.start()
    other = await Issuer().start()
    other.content = jwk_set(b="EdDSA")
    try:
        remote = server.app.issuer
        assert remote is not None
        await until(lambda: remote.fetched == 1)
        server.reload(settings_of(issuer))
        assert 200 == await ask(server, signed("RS256", "a"))
        server.reload(settings_of(other))
        await until(lambda: remote.fetched == 2)
        assert [200, 401] == [await ask(server, signed(*each)) for each in (("EdDSA", "b"), ("RS256", "a"))]
    finally:
        await server.stop(0)
        await other.stop()


async def test_unknown_keys_cause_few_requests() -> None:
    """However many tokens name a key that is not known, the issuer is asked once in half a minute."""
    asked = 0

    async def get(url: str) -> bytes:
        nonlocal asked
        asked += 1
        return jwk_set(a="RS256")

    changes: list[int] = []
    remote = RemoteKeys(lambda: changes.append(1), get=get)
    remote.use(AuthSettings(jwks_url="https://issuer.example/jwks"))
    task = asyncio.create_task(remote.run())
    await until(lambda: asked == 1)
    for _ in range(1000):
        remote.hurry()
        await asyncio.sleep(0)
    assert (1, [1]) == (asked, changes)
    task.cancel()
    await asyncio.wait({task})


async def test_keys_that_are_not_taken_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """Settings that can no longer be read with the new keys do not end the fetching."""

    async def get(url: str) -> bytes:
        return jwk_set(a="RS256")

    def changed() -> None:
        raise ConfigurationError("auth.keys_file is gone")

    remote = RemoteKeys(changed, get=get)
    remote.use(AuthSettings(jwks_url="https://issuer.example/jwks"))
    task = asyncio.create_task(remote.run())
    await until(lambda: "the issuer's keys are not taken: auth.keys_file is gone" in caplog.text)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
ANSWERS: dict[str, bytes] = {
    "a redirect": REDIRECT,
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "too long": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (jwks.SET_BYTES + 1),
    "no HTTP": b"hello\r\n\r\n",
    "nothing": b"",
    "no set": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_that_are_no_set(issuer: Issuer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each answer without a set of keys is one warning, and the keys of before stay in force."""
    issuer.answer = lambda: ANSWERS[name]
    remote = RemoteKeys(lambda: None)
    remote.use(AuthSettings(jwks_url=issuer.url))
    task = asyncio.create_task(remote.run())
    await until(lambda: remote.failed == 1)
    assert "the issuer's keys could not be fetched" in caplog.text
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert 1 == issuer.requests


async def test_an_issuer_that_does_not_answer(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An issuer that does not answer is given up at the deadline, and nothing else waits for it."""
    monkeypatch.setattr(jwks, "DEADLINE_SECONDS", 0.2)
    issuer.answer, issuer.hold = (lambda: b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), True
    remote = RemoteKeys(lambda: None)
    remote.use(AuthSettings(jwks_url=issuer.url))
    task = asyncio.create_task(remote.run())
    await until(lambda: remote.failed == 1)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(
    ("scheme", "begins"),
    [
        ("http", b"HTTP/1.1 200 OK\r\nX: "),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("https", b"\x16\x03\x03\x40\x00"),  # a record of the handshake, of 16 KiB
    ],
)
async def test_an_issuer_that_dribbles(scheme: str, begins: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed at the deadline, and the thread ends, in the handshake, the head and the body."""

    async def dribble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begins)
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"a")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await reader.read(65536)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    monkeypatch.setattr(jwks, "DEADLINE_SECONDS", 0.5)
    async with await asyncio.start_server(dribble, "127.0.0.1", 0) as server:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.5 s"):
            await get_whole(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        await until(lambda: not any(each.name == "oncecast-issuer-keys" for each in threading.enumerate()))


async def test_get(issuer: Issuer) -> None:
    """A fetch returns the whole body, or raises `OSError` where the issuer is away."""
    assert issuer.content == await get_whole(issuer.url)
    with pytest.raises(OSError, match="refused"):
        await get_whole("http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "Connection refused"),
        (urllib.error.URLError(TimeoutError("timed out")), "timed out"),
        (TimeoutError("no answer within 10 s"), "no answer within 10 s"),
        (OSError("the answer is 500"), "the answer is 500"),
        (http.client.RemoteDisconnected("Remote end\r\n closed"), "Remote end closed"),
        (ValueError(), "ValueError"),
    ],
)
def test_what_is_said_of_a_failure(error: Exception, said: str) -> None:
    """One line, without the names of Python's modules."""
    assert said == jwks._reason(error)


@pytest.mark.parametrize(
    "url", ["https://issuer.example/jwks", "http://localhost:8080/k", "http://[::1]/", "https://a:9/"]
)
def test_urls(url: str) -> None:
    """TLS says whose keys they are; this machine needs none."""
    assert url == check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example/jwks",
        "file:///etc/passwd",
        "ftp://a/",
        "https://",
        "https:///x",
        "https://u:p@a/",
        "https://a/#b",
        "https://a:0/",
        "https://a:99999/",
        "https://[::1/",
        "jwks",
        "",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    """The error repeats nothing of them: a URL may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        check_url(url)
    assert "auth.jwks_url is not https://HOST/PATH; http is for this machine only" == str(caught.value)


def test_settings(tmp_path: Any) -> None:
    """With the URL alone tokens are looked at."""
    from oncecast.server.auth import build_authenticator

    authenticator = build_authenticator(AuthSettings(jwks_url="https://a/", algorithms=("RS256",)))
    assert authenticator is not None
    assert authenticator.verifier is not None
    assert frozenset({"RS256"}) == authenticator.verifier.rules.algorithms
    with pytest.raises(ConfigurationError, match="HS256 has no key here"):
        build_authenticator(AuthSettings(jwks_url="https://a/", algorithms=("HS256",)))
