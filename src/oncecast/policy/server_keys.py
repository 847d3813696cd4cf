"""The keys of the operator's own servers: random texts, of which the settings hold the hashes.

A key is `ock_` and 256 random bits. The hash is SHA-256: a text as long and as random as this can't be
guessed, so it needs no slow hash. A line of the settings is `NAME:sha256:HEX`; with several of them a key is replaced
without a moment in which none holds. To take another hash, read its name in `parse_line`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable

from ..errors import ConfigurationError, Refusal
from .identity import Identity

__all__ = ["KEY_PREFIX", "ServerKeys", "check_name", "hash_line", "make_key"]

KEY_PREFIX = "ock_"  # so that scanners of source code can find a key that was committed
KEY_BYTES = 32
NAME_CHARS = 64

_LINE = re.compile(rf"([A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARS - 1}}}):sha256:([0-9a-f]{{64}})", re.ASCII)
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_CHARS - 1}}}", re.ASCII)
_KEY = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{43}}", re.ASCII)


def make_key(random: bytes) -> str:
    """Return the key of 32 random bytes."""
    assert len(random) == KEY_BYTES
    return KEY_PREFIX + urlsafe_b64encode(random).rstrip(b"=").decode()


def hash_line(name: str, key: str) -> str:
    """Return the line of the settings for a key. Raises `ConfigurationError` for a name that can't be one."""
    return f"{check_name(name)}:sha256:{_hash(key)}"


def check_name(name: str) -> str:
    """Return the name of a key, or raise `ConfigurationError`."""
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(
            f"{name[:NAME_CHARS]!a} can't name a key: use 1 to {NAME_CHARS} of A-Z a-z 0-9 . _ - and start with a "
            "letter or digit"
        )
    return name


def parse_line(line: str) -> tuple[str, str]:
    """Return the name and the hash of a line. Raises `ConfigurationError`, which does not repeat the line."""
    match = _LINE.fullmatch(line)
    if match is None:
        kind = "a key itself, not its hash" if line.startswith(KEY_PREFIX) else "not NAME:sha256:HEX"
        raise ConfigurationError(f"server_keys has an entry that is {kind}: `oncecast key create` prints a line")
    return match[1], match[2]


class ServerKeys:
    """The keys that are taken. Raises `ConfigurationError` for a line that is none, and for a name used twice."""

    __slots__ = ("_hashes",)

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._hashes: dict[str, bytes] = {}
        for name, digest in map(parse_line, lines):
            if name in self._hashes:
                raise ConfigurationError(f"server_keys has the name {name} twice: give each key a name of its own")
            self._hashes[name] = digest.encode()

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, identity: Identity) -> bool:
        """Return whether the key that a server has proved is still one of these."""
        return identity.subject is not None and self._hashes.get(identity.subject) == identity.key_hash

    def find(self, key: str) -> Identity:
        """Return the identity of a server. Raises `Refusal` (`unauthorized`)."""
        if _KEY.fullmatch(key) is not None:
            digest = _hash(key).encode()
            # Each one is compared, and in constant time: how long it takes says nothing about a hash.
            found = [name for name, known in self._hashes.items() if hmac.compare_digest(known, digest)]
            if found:
                return Identity("", found[0], "server", key_hash=digest)
        raise Refusal("unauthorized", "This server does not know that key: `oncecast key create` makes one.")


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
