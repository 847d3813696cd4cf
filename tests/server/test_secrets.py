"""Secrets that pass through a server stand in nothing that it writes: no log, no metric, no error, no header.

Each request carries secrets of its own, in each place where one may stand, once where it is served and once where it is
refused. A piece of `PIECE` characters of any of them in the output fails the test. To cover another kind of request, or
another place, add it to `requests` or `carried`.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

import oncecast
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.token_rig import SECRET, claims, token

SECONDS = 60.0
PIECE = 16  # characters of a secret: what is cut is a leak too
MASK = b"\x01\x02\x03\x04"
KEY = "ock_" + secrets.token_urlsafe(32)
RULES = """
[channels."open"]
subscribe = "public"
publish = "token"
[channels."*"]
subscribe = "token"
publish = "server"
"""


class Serving:
    """A process of `oncecast serve` with both logs on; `said` is what it has written, once it was stopped."""

    def __init__(self, folder: Path, form: str) -> None:
        (folder / "rules.toml").write_text(RULES)
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        settings = {
            "ONCECAST_ACCESS_LOG": form, "ONCECAST_AUDIT_LOG": form, "ONCECAST_BROKER": "memory://",
            "ONCECAST_AUTH__SECRET": SECRET, "ONCECAST_AUTH__COOKIE": "session",
            "ONCECAST_AUTH__SERVER_KEYS": f"shop:sha256:{sha256(KEY.encode()).hexdigest()}",
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oncecast", "serve", "--port", "0", "--config", "rules.toml"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": source, **settings},
        )  # fmt: skip
        self.said = ""
        assert self.process.stdout is not None
        while (found := re.search(r"listening on http://127\.0\.0\.1:(\d+)\n", self.said)) is None:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.port = int(found[1])

    def ask(self, data: bytes, until: bytes = b"") -> str:
        """Send bytes on a new connection; return what comes up to a mark, or to the end."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as peer:
            peer.sendall(data)
            got = b""
            while (not until or until not in got) and (more := peer.recv(1 << 16)):
                got += more
        assert until in got, got
        return got.decode("utf-8", "replace")

    def stop(self) -> None:
        """End the process, and read the rest of what it says."""
        self.process.send_signal(signal.SIGTERM)
        self.said += self.process.communicate(timeout=SECONDS)[0]
        assert 0 == self.process.returncode, self.said


@pytest.fixture(params=["json", "text"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    """A server, which is ended after the test."""
    running = Serving(tmp_path, request.param)
    yield running
    if running.process.poll() is None:
        running.process.kill()
        running.process.communicate()


class Hoard:
    """The secrets of a test, each made once."""

    def __init__(self) -> None:
        self.credentials = [KEY, SECRET]
        self.data: list[str] = []

    def token(self, *, good: bool = True) -> str:
        """Return a new token of ann; one that is not good has another's signature."""
        now = int(time.time())
        made = token(
            claims(iat=now, exp=now + 600, jti=secrets.token_urlsafe(24)), key=SECRET if good else SECRET[::-1]
        )
        self.credentials += made.split(".")[1:]  # all have the same head
        return made

    def other(self) -> str:
        """Return a credential of no known kind; it looks like no cursor either, which the access log may have."""
        self.credentials.append(secrets.token_urlsafe(24) + "-x")
        return self.credentials[-1]

    def message(self) -> str:
        """Return a message's data."""
        self.data.append("data" + secrets.token_urlsafe(24))
        return self.data[-1]


def found(text: str, hidden: list[str]) -> list[str]:
    """Return the pieces of secrets that stand in a text."""
    pieces = {each[at : at + PIECE] for each in hidden for at in range(len(each) - PIECE + 1)}
    return [text[at : at + PIECE] for at in range(len(text)) if text[at : at + PIECE] in pieces]


def ask(method: str, path: str, *headers: str, body: str = "", close: bool = True) -> bytes:
    """Return a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
    lines += ["Connection: close"] if close else []
    lines += [f"Content-Length: {len(body)}"] if method == "POST" else []
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def upgrade(path: str, *headers: str, protocols: str = "") -> bytes:
    """Return a WebSocket's handshake."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    more = [f"Sec-WebSocket-Protocol: {protocols}"] if protocols else []
    all_headers = ("Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13", *more, *headers)
    return ask("GET", path, *all_headers, close=False)


def frame(text: str) -> bytes:
    """Return a client's frame."""
    return encode_frame(Opcode.TEXT, text.encode(), mask=MASK)


def carried(hoard: Hoard, *, good: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield a query and headers with a credential, for each place that may have one."""
    yield "", [f"Authorization: Bearer {hoard.token(good=good)}"]
    yield "", [f"Cookie: other={hoard.other()}; session={hoard.token(good=good)}"]
    yield f"?token={hoard.token(good=good)}", []
    yield "", [f"Authorization: Bearer {KEY if good else KEY + hoard.other()}"]
    if not good:
        yield f"?token={KEY}", []  # it counts in Authorization only
        yield f"?ticket={hoard.other()}", []
        yield f"?token={hoard.token()}&ticket={hoard.other()}", []
        yield f"?last=x&TOKEN={hoard.other()}&after={hoard.other()}", []  # a field that is none
        yield "", [f"Authorization: Bearer {hoard.token()}", f"Cookie: session={hoard.token(good=False)}"]


def requests(hoard: Hoard, query: str, headers: list[str]) -> Iterator[bytes]:
    """Yield a request of each kind with these credentials; what is not stopped by them ends by itself."""
    yield ask("GET", f"/v1/channels/open{query}", *headers)
    yield ask("GET", f"/v1/channels/ann{query}", *headers, "Origin: https://evil.example")
    key = f"Idempotency-Key: {hoard.other()}"
    yield ask("POST", f"/v1/channels/open{query}", *headers, key, body=hoard.message())
    yield ask("POST", f"/v1/channels/shut{query}", *headers, body=hoard.message())
    line = f'{{"channel":"open","data":"{hoard.message()}"}}\n{{"channel":"shut","data":"{hoard.message()}"}}\n'
    yield ask("POST", f"/v1/publish{query}", *headers, body=line)
    yield ask("POST", f"/v1/publish{query}", *headers, body=f'{{"channel":"open","data":{hoard.message()}')
    yield ask("POST", f"/v1/disconnect{query}", *headers, body=f'{{"sub":"bob","{hoard.message()}":1}}')
    yield ask("POST", f"/v1/ticket{query}", *headers, body=f'{{"sub":1,"{hoard.message()}":1}}') if headers else b""
    yield ask("GET", f"/v1/nothing{query}", *headers)
    yield ask("GET", f"/nothing{query}", *headers)
    yield ask("DELETE", f"/v1/channels/open{query}", *headers)
    yield ask("GET", f"/v1/channels/open{query}", *headers, "no colon " + hoard.other())
    yield ask("GET", f"/v1/channels/open{query}", *headers, f"X\x00{hoard.other()}: {hoard.other()}")
    yield ask(hoard.other(), f"/{query}", *headers)
    yield ask("GET", f"http://{hoard.other()}:{hoard.other()}@localhost/{query}", *headers)
    yield ask("GET", f"/{query} {hoard.other()}", *headers)
    yield ask("GET", f"/{query}#{hoard.other()}", *headers)


def misplaced(hoard: Hoard) -> Iterator[bytes]:
    """Yield requests whose path has what was meant as a field. The answer repeats it, as a name that is none."""
    for mark in ("%3F", ";", "&", "%26", "%3b"):
        for headers in ([], ["Origin: https://evil.example"], ["Authorization: Bearer a.b.c"]):
            yield ask("GET", f"/v1/channels/open{mark}token={hoard.other()}", *headers)


def test_no_secret_is_written(serving: Serving) -> None:
    """Every kind of request, valid and refused, with a secret in each place: none is in what the server writes."""
    hoard = Hoard()
    answers: list[str] = []
    quiet: list[str] = []  # answers that are no message's either

    for good in (True, False):
        for query, headers in carried(hoard, good=good):
            for request in filter(None, requests(hoard, query, headers)):
                answer = serving.ask(request)
                assert answer.startswith("HTTP/1.1 "), request
                answers.append(answer)
                if not answer.startswith("HTTP/1.1 200"):
                    quiet.append(answer)
    for request in misplaced(hoard):
        assert serving.ask(request).startswith("HTTP/1.1 4"), request
    answers += streams(serving, hoard)
    quiet += refused_streams(serving, hoard)

    quiet.append(serving.ask(ask("GET", "/metrics")))
    serving.stop()
    assert "oncecast.access" in serving.said or '"access"' in serving.said
    assert "unauthorized" in serving.said
    assert [] == found(serving.said, hoard.credentials + hoard.data)
    assert [] == found("\n".join(answers), hoard.credentials)
    assert [] == [each for each in quiet if found(each, hoard.credentials + hoard.data)]


def streams(serving: Serving, hoard: Hoard) -> Iterator[str]:
    """Yield what streams and sockets say that are served."""
    sse = "Accept: text/event-stream"
    for query, headers in carried(hoard, good=True):
        yield serving.ask(ask("GET", f"/v1/channels/open{query}", sse, *headers), until=b"retry: ")
        yield serving.ask(upgrade(f"/v1/channels/open{query}", *headers), until=b"\r\n\r\n")
    protocols = f"oncecast.v1, oncecast.token.{hoard.token()}"
    frames = frame(f'{{"type":"auth","token":"{hoard.token()}"}}')
    frames += frame(f'{{"type":"publish","channel":"open","data":"{hoard.message()}"}}')
    frames += frame(f'{{"type":"auth","token":"{hoard.token(good=False)}"}}')
    yield serving.ask(upgrade("/v1/channels/open", protocols=protocols) + frames, until=b"unauthorized")
    made = serving.ask(ask("POST", "/v1/ticket", f"Authorization: Bearer {hoard.token()}"))
    ticket = re.search(r'"ticket":"([^"]+)"', made)
    assert ticket, made
    hoard.credentials.append(ticket[1])
    path = f"/v1/channels/open?ticket={ticket[1]}"
    yield serving.ask(ask("GET", path, sse), until=b"retry: ")
    yield serving.ask(ask("GET", path, sse))  # it was used


def refused_streams(serving: Serving, hoard: Hoard) -> Iterator[str]:
    """Yield what streams and sockets say that are refused, or ended for what was sent."""
    for query, headers in carried(hoard, good=False):
        yield serving.ask(ask("GET", f"/v1/channels/ann{query}", "Accept: text/event-stream", *headers))
        yield serving.ask(upgrade(f"/v1/channels/ann{query}", *headers), until=b"\r\n\r\n")
    yield serving.ask(upgrade("/v1/connect", protocols=f"oncecast.v1, oncecast.token.{KEY}"), until=b"unauthorized")
    for text, said in (
        (f'{{"type":"publish","channel":"shut","data":"{hoard.message()}"}}', b"forbidden"),
        (f'{{"type":"shout","data":"{hoard.message()}"}}', b"error"),  # the error names the type, see spec/wire.md
        (f'{{"type":"auth","token":"{hoard.token(good=False)}"}}', b"unauthorized"),
        (f'{{"type":"auth","token":["{hoard.token()}"]}}', b"error"),
        (f'{{"type":"publish","{hoard.message()}', b"error"),
    ):
        yield serving.ask(upgrade("/v1/connect", protocols="oncecast.v1") + frame(text), until=said)
    raw = upgrade("/v1/channels/open") + frame(hoard.message())
    yield serving.ask(raw, until=b"may publish")
