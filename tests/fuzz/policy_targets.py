"""Who asks, under fuzzing: tokens, sets of keys, the headers of proxies and the PROXY protocol.

Oracles: no token counts without a signature that a second reckoning confirms; no key of a set can be used for another
algorithm; what a client writes into a header does not change what a proxy adds behind it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache

from oncecast.errors import Refusal
from oncecast.policy.channels import is_pattern, parse_pattern
from oncecast.policy.forwarded import MOST_HOPS, READ_CHARS, ForwardedHeader, TrustedProxies, network_of
from oncecast.policy.keys import ALGORITHMS, MAX_KEYS, KeySet, parse_jwk_set, parse_secret
from oncecast.policy.tokens import (
    LAST_SECOND,
    TOKEN_CHARS,
    TokenRules,
    TokenVerifier,
    UnknownKey,
    looks_like_token,
    read_unverified,
)
from oncecast.wire.proxy_protocol import MOST_BYTES, parse_proxy_header

from .pieces import opened, pieces

__all__ = ["NOW", "SECRET", "forwarded", "jwk_sets", "patterns", "proxy_protocol", "tokens"]

NOW = 1_764_000_000.0
SECRET = "a secret of 32 bytes, or of more."
HEAD = b'{"alg":"HS256"}'
PUBLIC_KEY = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    "kid": "k",
}  # RFC 8037


@cache
def _verifier() -> TokenVerifier:
    keys = [parse_secret(SECRET, "here"), *parse_jwk_set(json.dumps({"keys": [PUBLIC_KEY]}).encode())]
    return TokenVerifier(KeySet(keys), TokenRules(audience=frozenset({"here"}), issuer=None))


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _signature(signed: str) -> bytes:
    return hmac.digest(SECRET.encode(), signed.encode(), hashlib.sha256)


def tokens(data: bytes) -> None:
    """Verify the content as a token, as the head of one, and as claims, the last two with a right signature."""
    variant, _, content = opened(data)
    match variant % 3:
        case 0:
            token = content.decode("utf-8", "surrogateescape")
        case 1:
            head, _, claims = content.partition(b"\n")
            signed = f"{_encoded(head)}.{_encoded(claims or b'{}')}"
            token = f"{signed}.{_encoded(_signature(signed))}"
        case _:
            signed = f"{_encoded(HEAD)}.{_encoded(content)}"
            token = f"{signed}.{_encoded(_signature(signed))}"
    assert len(read_unverified(token)) <= 2
    try:
        identity = _verifier().verify(token, NOW)
    except Refusal as refusal:
        assert "unauthorized" == refusal.code
        assert isinstance(refusal, UnknownKey) or type(refusal) is Refusal
        assert len(refusal.message) < 300
        return
    assert looks_like_token(token)
    assert len(token) <= TOKEN_CHARS
    head_text, claims_text, signature = token.split(".")
    # The content can't be signed by the public key, whose private one nobody here has.
    assert _signature(f"{head_text}.{claims_text}") == urlsafe_b64decode(signature + "==")
    claims = json.loads(urlsafe_b64decode(claims_text + "=="))
    assert NOW - 30 < claims["exp"] <= LAST_SECOND
    assert "here" in ([claims["aud"]] if isinstance(claims["aud"], str) else claims["aud"])
    assert claims.get("sub") == identity.subject
    assert identity.expires is not None
    assert identity.lasts(NOW)
    for granted in (identity.subscribe, identity.publish):
        assert granted is None or all(is_pattern(each) and "{" not in each for each in granted)


def jwk_sets(data: bytes) -> None:
    """Read a set of keys: each is public and of one algorithm, and none takes a signature made up from the set."""
    _, _, content = opened(data)
    try:
        keys = parse_jwk_set(content)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert 1 <= len(keys) <= MAX_KEYS
    for key in keys:
        assert key.algorithm in ALGORITHMS
        assert "HS256" != key.algorithm
        assert not hasattr(key.material, "private_bytes")
    verifier = TokenVerifier(KeySet(keys), TokenRules())
    signed = f"{_encoded(HEAD)}.{_encoded(b'{}')}"
    for secret in (content, b""):
        forged = hmac.digest(secret, signed.encode(), hashlib.sha256)
        try:
            verifier.verify(f"{signed}.{_encoded(forged)}", NOW)
        except Refusal:
            continue
        raise AssertionError("a set of public keys has taken a token of HS256")


def patterns(data: bytes) -> None:
    """Read a pattern of channels, and a channel beside it."""
    _, _, content = opened(data)
    text, _, channel = content.decode("latin-1").partition("\n")
    pattern = parse_pattern(text)
    if pattern is None:
        return
    place = pattern.place(channel)
    if place is not None:
        filled = text.replace("{sub}", place)
        assert channel == filled or (filled.endswith("*") and channel.startswith(filled[:-1]))
        assert "." not in place


PROXY, CLIENT = "10.0.0.1", "192.0.2.7"


@cache
def _proxies(header: ForwardedHeader) -> TrustedProxies:
    return TrustedProxies(["10.0.0.0/8", "2001:db8::/32"], header)


def forwarded(data: bytes) -> None:
    """Whatever a client writes into a proxy's header, or a proxy quotes, the address that the proxy adds is found."""
    variant, _, content = opened(data)
    header: ForwardedHeader = "forwarded" if variant & 1 else "x-forwarded-for"
    proxies = _proxies(header)
    value = content.decode("latin-1")
    found = proxies.client(PROXY, {header: value})
    assert str(ipaddress.ip_address(found)) == found
    assert "1.2.3.4" == proxies.client("1.2.3.4", {header: value})
    added = f"for={CLIENT}" if variant & 1 else CLIENT
    assert CLIENT == proxies.client(PROXY, {header: f"{value}, {added}"})
    assert CLIENT == proxies.client(PROXY, {header: f"{value},{added},{added.replace(CLIENT, '10.1.2.3')}"})
    if variant & 1 and value.count(",") < MOST_HOPS:  # the proxy may quote what the client has sent as `Host`
        host = 'host="' + re.sub(r'(["\\])', r"\\\1", value[: READ_CHARS // 4]) + '"'
        assert CLIENT == proxies.client(PROXY, {header: f"{added};{host}"})
        assert CLIENT == proxies.client(PROXY, {header: f"{host};{added}"})
        assert PROXY == proxies.client(PROXY, {header: host})
    assert network_of(found) == network_of(network_of(found).removesuffix("/64") or found)
    network_of(value)


def proxy_protocol(data: bytes) -> None:
    """Read a header from each beginning of the content: the first answer stays, whatever follows."""
    _, way, content = opened(data)
    content = content[: MOST_BYTES + 50]
    whole = _header(content)
    end, answered = 0, False
    for piece in pieces(content, way):
        end += len(piece)
        found = _header(content[:end])
        if found is None:
            assert not answered
            continue
        answered = True
        assert found == whole
        if isinstance(found, tuple):
            assert end >= found[0]
    if isinstance(whole, tuple):
        size, address = whole
        assert size <= MOST_BYTES
        assert address is None or str(ipaddress.ip_address(address)) == address
    elif whole is None:
        assert len(content) < MOST_BYTES


def _header(data: bytes) -> tuple[int, str | None] | str | None:
    try:
        header = parse_proxy_header(data)
    except Refusal as refusal:
        return refusal.code
    return None if header is None else (header.size, header.address)
