"""How a node logs in to NATS: a user and a password, a token, an nkey, or credentials (a JWT and an nkey).

A password without a user is a token, and so is a user without a password. Files and variables are read for each
connection, as credentials are renewed while a node runs. No error shows what they hold.

To add a way, add its option to `SOURCES` and to `broker.OPTIONS`, and a branch in `login`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nats.aio.client import RawCredentials

from ...errors import ConfigurationError
from ..address import Address

SOURCES = ("credentials", "credentials_env", "nkey_file", "nkey_env")  # options of the URL
SEED = re.compile(r"SU[A-Z2-7]{56}", re.ASCII)
JWT = "BEGIN NATS USER JWT"
NKEY = "BEGIN USER NKEY SEED"


def login(address: Address, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return the arguments of the library's `connect`. Raises `ConfigurationError`, in one line without a secret."""
    given = [name for name in SOURCES if name in address.options]
    if len(given) + (address.user is not None or address.password is not None) > 1:
        raise ConfigurationError(f"broker: {address}: the login is given in several ways: use one")
    if not given:
        if address.user is None or address.password is None:
            return {"token": address.password if address.user is None else address.user}
        return {"user": address.user, "password": address.password}
    text = _read(address, given[0], environ)
    seed = _seed_of(text) if given[0].startswith("credentials") else text
    if seed is None or SEED.fullmatch(seed) is None or not _is_key(seed):
        what = "a user's credentials" if given[0].startswith("credentials") else "a user's seed, which begins with SU"
        raise ConfigurationError(f"broker: {address}: {given[0]} does not hold {what}, or not all of it")
    return {"nkeys_seed_str": seed} if text == seed else {"user_credentials": RawCredentials(f"{text}\n")}


def _read(address: Address, source: str, environ: Mapping[str, str]) -> str:
    name = address.options[source]
    if source.endswith("_env"):
        if name not in environ:
            raise ConfigurationError(f"broker: {address}: there is no variable {name}, named by {source}")
        return environ[name].strip()
    try:
        return Path(name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise ConfigurationError(f"broker: {address}: {source} {name} can't be read: {text}") from None


def _seed_of(credentials: str) -> str | None:
    """Return the seed in credentials, None where these are not whole: the library waits for a line that never comes."""
    _, jwt, rest = credentials.partition(JWT)
    lines = rest.partition(NKEY)[2].splitlines()
    return lines[1].strip() if jwt and len(lines) > 2 else None


def _is_key(seed: str) -> bool:
    """Return whether the library takes a seed. Raises `ConfigurationError` where it lacks its own library."""
    try:
        import nkeys
    except ImportError:
        raise ConfigurationError("broker: NATS keys need their library: pip install 'oncecast[nats]'") from None
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
    except Exception:  # noqa: BLE001 - it raises what its base64 and its elliptic curves raise
        return False
    return True
