"""What a server's process reads, under fuzzing: its settings, and the first bytes of a TLS connection.

Oracles: what is wrong with settings is one line that names its source, and what is right is written and read again the
same, whole or each value; bytes that are no handshake end it with an alert, or an answer in plain text.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import tempfile
import tomllib
from functools import cache
from pathlib import Path
from typing import cast

from oncecast.errors import ConfigurationError
from oncecast.server.config.setting import RULE, TABLES, Setting, toml
from oncecast.server.config.sources import Loaded, load
from oncecast.server.config.text import to_toml
from oncecast.server.read_budget import ReadBudget
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate
from oncecast.server.tls.opening import PLAIN_HTTP_ANSWER, open_channel
from oncecast.server.tls.reader import TlsReader
from oncecast.server.tls.shared import Shared

from .pieces import opened, pieces

__all__ = ["setting_values", "settings", "tls_opening", "written_settings"]


# -- settings


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="oncecast-fuzz-", dir=memory if memory.is_dir() else None))


def settings(data: bytes) -> None:
    """Read the content as a settings file, or as lines of variables."""
    _read_settings(data)


def written_settings(data: bytes) -> None:
    """Do the same; what was taken is written, and reads the same. That takes longer than all the rest."""
    loaded = _read_settings(data)
    if loaded is None:
        return
    again = _folder() / "again.toml"
    text = to_toml(loaded.settings, loaded.sources)
    again.write_bytes(text.encode())
    if "is set, and not shown" not in text:
        assert loaded.settings == _load(again, {}).settings


def _read_settings(data: bytes) -> Loaded | None:
    variant, _, content = opened(data)
    file, environ = None, {}
    if variant & 1:
        for line in content.decode("utf-8", "surrogateescape").split("\n"):
            name, _, value = line.partition("=")
            if name and "\0" not in line:
                environ[name] = value
    else:
        file = _folder() / "fuzz.toml"
        file.write_bytes(content)
    try:
        return _load(file, environ)
    except ConfigurationError as error:
        text = str(error)
        assert "\n" not in text
        assert text
        return None


def _load(file: Path | None, environ: dict[str, str]) -> Loaded:
    here = os.getcwd()
    os.chdir(_folder())  # where there is no oncecast.toml
    try:
        return load(file=file, environ=environ, flags={})
    finally:
        os.chdir(here)


EACH = tuple(setting for keys in (*TABLES.values(), RULE) for setting in keys.values())
WHERE = "here: a key"


def setting_values(data: bytes) -> None:
    """Give the content to one setting, as a variable's text or as a file's value: a reading of it all takes longer."""
    variant, way, content = opened(data)
    setting = EACH[variant % len(EACH)]
    value: object = content.decode("utf-8", "surrogateescape")
    if way & 1:
        try:
            value = json.loads(content)  # as TOML: with numbers of any size, and what is no number
        except (ValueError, RecursionError):
            return
        if value is None:  # which TOML does not have
            return
    else:
        value = setting.from_text(str(value))
    checked = _checked(setting, value)
    if checked is None:
        return
    written = tomllib.loads(f"value = {toml(checked)}")["value"]
    assert checked == _checked(setting, written)


def _checked(setting: Setting, value: object) -> object:
    try:
        return setting.check(value, WHERE)
    except ConfigurationError as error:
        text = str(error)
        assert text.startswith(WHERE)
        assert text.isprintable()
        assert len(text) < 1000
        assert not setting.secret or text.endswith("not what was given")
        return None


# -- TLS


@cache
def _context() -> ssl.SSLContext:
    made = with_certificate(Settings(tls=True), {"XDG_STATE_HOME": str(_folder())})
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.tls_cert[0], made.tls_key[0])
    return context


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def tls_opening(data: bytes) -> None:
    """Give the content to a handshake, in pieces, then the end."""
    _, way, content = opened(data)
    _loop().run_until_complete(_open([*pieces(content, way or 32)]))


_NOBODY = cast(TlsReader, None)  # a handshake that fails gives its channel to nobody


class _Socket(socket.socket):
    """One of a pair, which is not TCP's: a listener would run out of ports."""

    def setsockopt(self, *_: object) -> None:
        """Set nothing."""


async def _open(parts: list[bytes]) -> None:
    loop = asyncio.get_running_loop()
    shared = Shared(loop, ReadBudget(loop.time, loop.call_soon), loop.time)
    pair, theirs = socket.socketpair()
    with _Socket(fileno=pair.detach()) as ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        opening = asyncio.ensure_future(open_channel(shared, ours, _context(), _NOBODY))
        for part in parts:
            if opening.done():
                break
            try:
                await loop.sock_sendall(theirs, part)
            except ConnectionError:
                break
            await asyncio.sleep(0)
        theirs.shutdown(socket.SHUT_WR)
        try:
            await asyncio.wait_for(opening, 30)
        except OSError:
            try:
                answer = theirs.recv(1 << 16)
            except BlockingIOError:
                answer = b""
        else:
            raise AssertionError("bytes that nobody has encrypted were a handshake")
        assert answer == PLAIN_HTTP_ANSWER or answer[:1] in (b"", b"\x15", b"\x16", b"\x14")
