"""From the settings of `[auth]` to what verifies credentials: the files are read here, and what is in them is checked.

Invariant: keys that can't serve raise a `ConfigurationError` of one line, which repeats no secret. To take keys from
another place, read them in `_read_keys`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ConfigurationError
from ..policy.authenticator import Authenticator
from ..policy.keys import ALGORITHMS, KeySet, VerifyingKey, parse_pem, parse_secret
from ..policy.server_keys import ServerKeys
from ..policy.tokens import TokenRules, TokenVerifier
from .files import read_whole
from .settings import AuthSettings

__all__ = ["build_authenticator", "read_secrets"]

PUBLIC = frozenset(ALGORITHMS) - {"HS256"}  # what a set of keys at a URL may be for
FILE_BYTES = 256 * 1024  # of keys: one has less than 1 KiB


def build_authenticator(auth: AuthSettings, fetched: Sequence[VerifyingKey] = ()) -> Authenticator | None:
    """Return what verifies credentials; None where the settings name no key. Raises `ConfigurationError`.

    `fetched` are the keys that `jwks_url` has: none where they have never been fetched.
    """
    keys = list(_read_keys(auth))
    server_keys = ServerKeys(auth.server_keys)
    if not keys and auth.jwks_url is None:
        return Authenticator(None, server_keys) if server_keys else None
    algorithms = _algorithms(auth, keys)
    rules = TokenRules(
        algorithms=algorithms,
        issuer=auth.issuer,
        audience=frozenset(auth.audience),
        leeway=auth.leeway_seconds,
        max_seconds=auth.max_token_seconds,
    )
    usable = (key for key in (*keys, *fetched) if key.algorithm in algorithms)
    awaited = algorithms & PUBLIC if auth.jwks_url is not None and not fetched else frozenset[str]()
    return Authenticator(TokenVerifier(KeySet(usable), rules, awaited), server_keys)


def _read_keys(auth: AuthSettings) -> Iterator[VerifyingKey]:
    """Yield the keys that the settings name."""
    where = "auth.secret" if auth.secret is not None else f"auth.secret_file: {auth.secret_file}"
    for secret in read_secrets(auth):
        yield parse_secret(secret, where)
    if auth.public_key_file is not None:
        where = f"auth.public_key_file: {auth.public_key_file}"
        yield from parse_pem(_read(where, auth.public_key_file), where)


def read_secrets(auth: AuthSettings) -> list[str]:
    """Return the secrets of the settings, the newest last. Raises `ConfigurationError`."""
    if auth.secret is not None:
        return [auth.secret]
    if auth.secret_file is None:
        return []
    where = f"auth.secret_file: {auth.secret_file}"
    try:
        lines = [line.strip() for line in _read(where, auth.secret_file).decode().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ConfigurationError(f"{where} is not UTF-8: write the secret as text, such as base64") from None
    if not lines:
        raise ConfigurationError(f"{where} is empty: write the secret into it")
    if any("-----BEGIN" in line for line in lines):
        raise ConfigurationError(f"{where} is a key in PEM, which is no secret: name it in public_key_file")
    return lines


def _algorithms(auth: AuthSettings, keys: list[VerifyingKey]) -> frozenset[str]:
    """Return the algorithms that are taken: those that are listed, or those of the keys."""
    own = frozenset(key.algorithm for key in keys)
    of_keys = own if auth.jwks_url is None else own | PUBLIC
    if not auth.algorithms:
        return frozenset(of_keys)
    for name in auth.algorithms:
        if name not in ALGORITHMS:
            raise ConfigurationError(f"auth.algorithms: {name[:20]!a} is not one of {', '.join(ALGORITHMS)}")
        if name not in of_keys:
            source = "secret_file" if name == "HS256" else "public_key_file"
            raise ConfigurationError(f"auth.algorithms: {name} has no key here: set {source}, or leave {name} out")
    unused = own.difference(auth.algorithms)
    if unused:
        name = min(unused)
        raise ConfigurationError(f"auth.algorithms lacks {name}, which a key here is for: add it, or remove that key")
    return frozenset(auth.algorithms)


def _read(where: str, path: str) -> bytes:
    try:
        return read_whole(Path(path), FILE_BYTES)
    except OSError as error:
        cure = "let this user read it" if isinstance(error, PermissionError) else "give a file that the server may read"
        raise ConfigurationError(f"{where}: {error.strerror}; {cure}") from None
