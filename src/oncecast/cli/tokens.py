"""`oncecast token create|inspect`: make a token for a test or a script, and see what is wrong with one.

Only `inspect --fetch` asks the network. Invariant: `inspect` decides by the verifier that the server asks.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import click

from ..client.dialing import reason_of
from ..errors import ConfigurationError, Refusal
from ..policy.authenticator import Authenticator
from ..policy.identity import Identity, Patterns
from ..policy.keys import VerifyingKey, parse_jwk_set, parse_secret
from ..policy.tokens import TOKEN_CHARS, read_unverified
from ..server.auth import build_authenticator, read_secrets
from ..server.files import read_whole
from ..server.jwks import cause_of, get_whole
from ..server.settings import AuthSettings
from .base import FAILED, MISUSED, Failure, config_option, in_one_line, load_settings, put, say, warn

__all__ = ["token"]

KEY_BYTES = 64 * 1024
WIDTH = 11  # of the first column


@click.group(short_help="Make a token, or see what is wrong with one.")
def token() -> None:
    """Make a token of a user, or see what is wrong with one.

    \b
    Examples:
      oncecast token create --sub ann --subscribe 'chat.*' | oncecast token inspect -
    """


@token.command()
@click.option("--sub", "subject", metavar="USER", help="The user that the token is for.")
@click.option("--subscribe", multiple=True, metavar="PATTERN", help="Channels that it grants to read; repeatable.")
@click.option("--publish", multiple=True, metavar="PATTERN", help="Channels that it grants to publish to; repeatable.")
@click.option("--ttl", type=click.FloatRange(1), default=3600, show_default=True, metavar="S", help="Seconds it lives.")
@click.option("--key", "key_file", type=click.Path(path_type=Path), metavar="FILE", help="A private key, PEM.")
@click.option("--kid", metavar="KID", help="The name of the key, for its head.")
@config_option
def create(
    subject: str | None,
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    ttl: float,
    key_file: Path | None,
    kid: str | None,
    file: Path | None,
) -> None:
    """Print a token.

    It is signed with the secret of the settings (ONCECAST_AUTH__SECRET, or auth.secret_file), or with the private key
    of --key, and has the issuer and the audience of the settings. Without --subscribe and --publish it names no
    channels, so that the rules of the channels decide; with one of them it grants nothing else. {sub} stands for the
    user.

    \b
    Examples:
      oncecast token create --sub ann
      oncecast token create --sub ann --subscribe 'user.{sub}' --publish chat --ttl 600
      oncecast token create --sub ann --key issuer-private.pem --kid 2026-1
    """
    loaded = load_settings(file, {})
    warn(loaded.warnings)
    auth = loaded.settings.auth
    now = int(time.time())
    claims: dict[str, Any] = {"iat": now, "exp": now + math.ceil(ttl)}
    if subject is not None:
        claims["sub"] = subject
    if auth.issuer is not None:
        claims["iss"] = auth.issuer
    if auth.audience:
        claims["aud"] = list(auth.audience)
    if subscribe or publish:
        claims["oncecast"] = {"subscribe": list(subscribe), "publish": list(publish)}
    with in_one_line():
        made = _sign(claims, auth, key_file, {} if kid is None else {"kid": kid})
        warn(_refusals(auth, made) if key_file is None else ())
    put(made)


def _refusals(auth: AuthSettings, made: str) -> Iterator[str]:
    """Yield why a server with these settings does not take what their own secret has signed."""
    try:
        identify(auth, made)
    except (ConfigurationError, Refusal) as error:
        yield f"a server with these settings does not take it: {error}"


def _sign(claims: Mapping[str, Any], auth: AuthSettings, key_file: Path | None, head: Mapping[str, str]) -> str:
    import jwt

    if key_file is not None:
        algorithm, private = _read_private(key_file)
        return jwt.encode(dict(claims), private, algorithm, dict(head))
    secrets = read_secrets(auth)
    if not secrets:
        raise ConfigurationError("there is no secret to sign with: set ONCECAST_AUTH__SECRET, or name a key with --key")
    return jwt.encode(dict(claims), parse_secret(secrets[-1], "the secret").material, "HS256", dict(head))


def _read_private(path: Path) -> tuple[str, Any]:
    """Return the algorithm of a private key, and the key. Raises `ConfigurationError`."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(read_whole(path, KEY_BYTES), None)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; give a private key in PEM") from None
    except Exception:  # noqa: BLE001 - cryptography raises several kinds
        cure = "give one, as `openssl genpkey` writes it"
        raise ConfigurationError(f"{path} is no private key in PEM without a passphrase: {cure}") from None
    if isinstance(private, RSAPrivateKey):
        return "RS256", private
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP256R1):
        return "ES256", private
    if isinstance(private, Ed25519PrivateKey):
        return "EdDSA", private
    raise ConfigurationError(f"{path} is a key of another kind: give one of RSA, EC on P-256, or Ed25519")


@token.command(short_help="Print what a token says, and whether it is taken.")
@click.argument("text", metavar="TOKEN|-")
@click.option("--fetch", is_flag=True, help="Fetch the keys of auth.jwks_url; without it, the network is not asked.")
@config_option
def inspect(text: str, fetch: bool, file: Path | None) -> None:
    """Print what a token says, and whether a server with these settings takes it.

    With - the token is read from standard input, so that no history of commands has it. Exits with 1 where it is
    refused, and says why.

    \b
    Examples:
      oncecast token inspect - < token.txt
      oncecast token create --sub ann | oncecast token inspect - --config /etc/oncecast.toml
    """
    loaded = load_settings(file, {})
    warn(loaded.warnings)
    auth = loaded.settings.auth
    given = read_token(text)
    fetched = _fetch(auth.jwks_url) if fetch and auth.jwks_url is not None else []
    with in_one_line():
        authenticator = build_authenticator(auth, fetched)
    if auth.jwks_url is not None and not fetch:
        say("The keys of auth.jwks_url are not looked at: give --fetch to ask for them.")
    identity = show_token(authenticator, given)
    if authenticator is None:
        raise Failure(
            "the token's signature was not checked: name a key in [auth], or the settings with --config", FAILED
        )
    if identity is None:
        raise Failure("the token is refused", FAILED)


def _fetch(url: str) -> list[VerifyingKey]:
    """Return the keys that a URL has. Raises `Failure`."""
    try:
        return parse_jwk_set(asyncio.run(get_whole(url)))
    except (OSError, ValueError, HTTPException) as error:
        cause = cause_of(error)
        said = reason_of(cause) if cause is not error and isinstance(cause, OSError) else str(error)
        raise Failure(f"the keys of auth.jwks_url can't be fetched: {said}; check the URL", FAILED) from None


def read_token(text: str) -> str:
    """Return a token that was given as an argument, or on standard input. Raises `Failure`."""
    if text == "-":
        text = sys.stdin.read(2 * TOKEN_CHARS)
    elif os.path.isfile(text):  # a Path raises for a token, which is too long a name
        raise Failure(f"{text} is a file, and not a token: give - and the file on standard input", MISUSED)
    text = text.strip()
    if not text:
        raise Failure("there is no token: give one, or - and the token on standard input", MISUSED)
    return text.removeprefix("Bearer ")


def identify(auth: AuthSettings, text: str) -> Identity:
    """Return whom a token or a key stands for. Raises `ConfigurationError` or `Refusal`."""
    authenticator = build_authenticator(auth)
    if authenticator is None:
        raise ConfigurationError("the settings name no key in [auth], so no token counts: leave it out")
    return authenticator.identify(text, "", time.time())


def show_token(authenticator: Authenticator | None, text: str) -> Identity | None:
    """Print what a token says, and the verdict. Returns None where it is refused."""
    now = time.time()
    for name, part in zip(("head", "claims"), read_unverified(text), strict=False):
        put(_line(name, json.dumps(part, ensure_ascii=True)))
    if authenticator is None:
        put(
            _line(
                "verdict",
                "unknown: the signature was not checked, as the settings name no key in [auth]",
            )
        )
        return None
    try:
        identity = authenticator.identify(text, "", now)
    except Refusal as refusal:
        put(_line("verdict", f"refused with {refusal.error.status} {refusal.code}: {refusal.message}"))
        return None
    put(_line("who", f"{identity.kind} {identity.subject or 'without a sub'}"))
    put(_line("subscribe", _granted(identity.subscribe)))
    put(_line("publish", _granted(identity.publish)))
    if identity.expires is not None:
        put(_line("ends", f"in {identity.expires - now:.0f} s, with the leeway"))
    put(_line("verdict", "taken"))
    return identity


def _granted(patterns: Patterns | None) -> str:
    if patterns is None:
        return "as the rules of the channels say"
    return ", ".join(patterns) or "nothing"


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"
