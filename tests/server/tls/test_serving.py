"""TLS of a whole server: `oncecast serve`, its certificates renewed and its workers replaced, and `--dev --tls`."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import oncecast
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate

SECONDS = 60.0


class Serving:
    """A process of `oncecast serve`. `log` grows as it is read."""

    def __init__(self, folder: Path, *options: str) -> None:
        source = os.path.dirname(os.path.dirname(oncecast.__file__))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oncecast", "serve", "--port", "0", "--broker", "sqlite:///log.db", *options],
            stderr=subprocess.PIPE, text=True, cwd=folder,
            env={**os.environ, "PYTHONPATH": source, "XDG_STATE_HOME": str(folder / "state")},
        )  # fmt: skip
        self.log = ""
        found = re.search(r"listening on https://127\.0\.0\.1:(\d+)\n", self.until("listening on https://"))
        assert found, self.log
        self.port = int(found[1])

    def until(self, mark: str) -> str:
        """Read the log up to the line that has a mark."""
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            self.log += line
            if mark in line:
                return line
        raise AssertionError(f"no {mark!r} in {self.log}")

    def subject(self, cert: Path) -> bytes:
        """Make a request, trusting one certificate alone; returns the certificate that is served."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=SECONDS, context=ssl.create_default_context(cafile=str(cert))
        )
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            assert 200 == connection.getresponse().status
            served = connection.sock.getpeercert(binary_form=True)
        assert served is not None
        return bytes(served)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[list[Serving]]:
    """The processes of a test, which are ended after it."""
    running: list[Serving] = []
    yield running
    for each in running:
        each.process.terminate()
        each.process.communicate(timeout=SECONDS)
        assert 0 == each.process.returncode


def test_workers_renew_and_are_replaced(tmp_path: Path, serve: list[Serving]) -> None:
    """Each worker serves what a SIGHUP has found. A pair that can't serve changes none. Successors serve it as well."""
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = []
    for name in ("first", "second", "third"):
        settings = with_certificate(Settings(dev=True, tls=True), {"XDG_STATE_HOME": str(tmp_path / name)})
        made.append((Path(settings.tls_cert[0]), Path(settings.tls_key[0])))
    for part, place in zip(made[0], files, strict=True):
        shutil.copy(part, place)
    running = Serving(tmp_path, "--workers", "2", "--tls-cert", str(files[0]), "--tls-key", str(files[1]))
    serve.append(running)
    first = {running.subject(made[0][0]) for _ in range(20)}
    assert 1 == len(first)

    for part, place in zip(made[1], files, strict=True):
        shutil.copy(part, place)
    running.process.send_signal(signal.SIGHUP)
    running.until("the settings have been read again")
    until = time.monotonic() + SECONDS
    while first & (found := {served_by(running, made) for _ in range(20)}):
        assert time.monotonic() < until
    assert 1 == len(found)

    shutil.copy(made[2][0], files[0])  # without its key
    running.process.send_signal(signal.SIGHUP)
    assert "is not the private key of" in running.until("the settings stay as they were")
    assert found == {served_by(running, made) for _ in range(20)}
    running.process.send_signal(signal.SIGUSR2)
    assert "is not the private key of" in running.until("rolling restart given up")
    assert found == {served_by(running, made) for _ in range(20)}

    shutil.copy(made[2][1], files[1])
    running.process.send_signal(signal.SIGUSR2)
    running.until("every worker is a new one")
    assert not found & {running.subject(made[2][0]) for _ in range(20)}


def served_by(running: Serving, made: list[tuple[Path, Path]]) -> bytes:
    """Make a request that trusts any of some certificates; returns the one that is served."""
    for cert, _ in made:
        with contextlib.suppress(ssl.SSLCertVerificationError):
            return running.subject(cert)
    raise AssertionError("another certificate is served")


def test_development(tmp_path: Path, serve: list[Serving]) -> None:
    """`--dev --tls` makes a certificate and says how to trust it; `oncecast pub` and `sub` work as it says."""
    running = Serving(tmp_path, "--dev", "--tls")
    serve.append(running)
    running.until("  stop  ")
    cert = tmp_path / "state" / "oncecast" / "localhost" / "cert.pem"
    url = f"https://127.0.0.1:{running.port}"
    assert f"publish      curl --cacert {cert} -d" in running.log
    assert f"trust        export SSL_CERT_FILE={cert} " in running.log
    running.subject(cert)

    def oncecast_(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "oncecast", *arguments],
            env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(oncecast.__file__)), **environment},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    for server in (url, url.replace("127.0.0.1", "localhost")):
        published = oncecast_("pub", "a", "hello", "--server", server, SSL_CERT_FILE=str(cert))
        assert (0, "") == (published.returncode, published.stderr)
    for transport in ("websocket", "sse", "long-poll"):
        heard = oncecast_(
            "sub", "a", "--server", url, "--transport", transport, "--after", "earliest", "--count", "2",
            SSL_CERT_FILE=str(cert),
        )  # fmt: skip
        assert (0, "hello\nhello\n") == (heard.returncode, heard.stdout), heard.stderr
    untrusted = oncecast_("pub", "a", "hello", "--server", url)
    assert 0 != untrusted.returncode
    assert "certificate" in untrusted.stderr
    assert "SSL_CERT_FILE" in untrusted.stderr
