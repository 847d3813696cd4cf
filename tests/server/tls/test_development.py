"""The certificate for localhost that a server makes itself."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.settings import Settings
from oncecast.server.tls import check, development
from oncecast.server.tls.development import with_certificate

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 30.0
WANTED = Settings(port=0, dev=True, tls=True)


def test_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """Without `tls`, or with a certificate that is given, the settings stay as they are."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    for settings in (Settings(), Settings(tls=True, tls_cert=("c",), tls_key=("k",))):
        assert settings is with_certificate(settings, environ)
    assert [] == list(tmp_path.iterdir())


async def test_clients_that_trust_it_connect_by_each_name(open_site: Open, tmp_path: Path) -> None:
    """The names of this machine's loopback, with a strict check of the chain and the name."""
    settings = with_certificate(WANTED, {"XDG_STATE_HOME": str(tmp_path)})
    site = await open_site(settings)
    context = ssl.create_default_context(cafile=settings.tls_cert[0])
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by default
    for name in development.NAMES:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.server.port, ssl=context, server_hostname=name)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP/1.1 200 OK\r\n" == await asyncio.wait_for(reader.readline(), SECONDS)
        writer.close()
        await writer.wait_closed()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await asyncio.open_connection("127.0.0.1", site.server.port, ssl=context, server_hostname="example.org")


def test_it_is_this_users_alone_and_used_again(tmp_path: Path) -> None:
    """The same files serve the next start; nobody else can read the key."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    first = with_certificate(WANTED, environ)
    folder = tmp_path / "oncecast" / "localhost"
    assert (str(folder / "cert.pem"), str(folder / "key.pem")) == (first.tls_cert[0], first.tls_key[0])
    assert 0o600 == stat.S_IMODE((folder / "key.pem").stat().st_mode)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    before = (folder / "cert.pem").read_bytes()
    assert first == with_certificate(WANTED, environ)
    assert before == (folder / "cert.pem").read_bytes()
    (pair,), complaints = check(first)
    assert [] == complaints
    assert "localhost, 127.0.0.1, ::1" == pair.shown


@pytest.mark.parametrize("fault", ["the end is near", "no key", "another key", "half a file", "open to all"])
def test_it_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Where its end is near, and where the files are not a pair of this user's alone, as after a crash."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    if fault == "the end is near":
        monkeypatch.setattr(development, "DAYS", 29)
    settings = with_certificate(WANTED, environ)
    monkeypatch.undo()
    cert, key = Path(settings.tls_cert[0]), Path(settings.tls_key[0])
    before = cert.read_bytes()
    if fault == "no key":
        key.unlink()
    elif fault == "another key":
        other = with_certificate(WANTED, {"XDG_STATE_HOME": str(tmp_path / "other")})
        key.write_bytes(Path(other.tls_key[0]).read_bytes())
    elif fault == "half a file":
        key.write_bytes(key.read_bytes()[:50])
        key.with_suffix(".new").write_text("left over")
    elif fault == "open to all":
        key.chmod(0o644)
    with_certificate(WANTED, environ)
    assert before != cert.read_bytes()
    assert 0o600 == stat.S_IMODE(key.stat().st_mode)
    (pair,), _ = check(settings)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    assert 396 < (pair.until - now) / 86_400 <= 397


def test_many_at_once_make_one(tmp_path: Path) -> None:
    """Servers that start together use one pair."""
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    found: list[bytes] = []

    def start() -> None:
        settings = with_certificate(WANTED, environ)
        check(settings)
        found.append(Path(settings.tls_cert[0]).read_bytes())

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert (8, 1) == (len(found), len(set(found)))


def test_a_place_that_cant_be_written(tmp_path: Path) -> None:
    """The error says what to set."""
    (tmp_path / "oncecast").write_text("a file where a directory is to be")
    with pytest.raises(ConfigurationError, match=r"^tls: .*oncecast.*; set XDG_STATE_HOME to a directory that this"):
        with_certificate(WANTED, {"XDG_STATE_HOME": str(tmp_path)})


def test_without_a_state_directory_it_is_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative XDG_STATE_HOME is ignored, as its specification demands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for environ in ({}, {"XDG_STATE_HOME": "state"}):
        settings = with_certificate(WANTED, environ)
        assert settings.tls_cert[0].startswith(os.path.join(tmp_path, ".local/state/oncecast/"))
