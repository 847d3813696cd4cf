"""Credentials: a token is verified once, and a refusal is never an anybody."""

from __future__ import annotations

import dataclasses

import pytest

from oncecast.errors import Refusal
from oncecast.policy import authenticator as authenticator_module
from oncecast.policy.authenticator import Authenticator
from oncecast.policy.identity import Identity
from oncecast.policy.keys import KeySet, parse_pem, parse_secret
from oncecast.policy.server_keys import ServerKeys, hash_line, make_key
from oncecast.policy.tokens import TokenRules, TokenVerifier
from tests.token_rig import NOW, SECRET, claims, private_key, public_pem, token

KEY = make_key(bytes(32))


def authenticator() -> Authenticator:
    """Return one that knows a secret and a key."""
    verifier = TokenVerifier(KeySet([parse_secret(SECRET, "s")]), TokenRules())
    return Authenticator(verifier, ServerKeys([hash_line("shop", KEY)]))


def test_a_token_is_verified_once() -> None:
    """After that it is remembered, for every address, until it ends."""
    known = authenticator()
    text = token()
    one = known.identify(text, "192.0.2.1", NOW)
    assert Identity("192.0.2.1", "ann", "token", issued=NOW - 30, expires=NOW + 90) == one
    assert one is known.identify(text, "192.0.2.1", NOW + 89)
    assert "192.0.2.2" == known.identify(text, "192.0.2.2", NOW).address
    assert (1, 2, 0) == (known.counters.verified, known.counters.remembered, known.counters.refused)
    with pytest.raises(Refusal, match="expired"):
        known.identify(text, "192.0.2.1", NOW + 90)
    assert 1 == known.counters.refused


def test_an_unknown_key_is_reported() -> None:
    """The token is refused all the same; while the issuer's keys are awaited, the client is asked to try again."""
    reports: list[None] = []
    (key,) = parse_pem(public_pem(private_key("RS256")), "f")
    text = token(key=private_key("RS256"), algorithm="RS256", head={"kid": "2"})
    keys = KeySet([dataclasses.replace(key, kid="1")])
    for awaited, code in ((frozenset[str](), "unauthorized"), (frozenset({"RS256"}), "unavailable")):
        known = Authenticator(TokenVerifier(keys, TokenRules(), awaited), ServerKeys())
        known.on_unknown_key = lambda: reports.append(None)
        with pytest.raises(Refusal) as caught:
            known.identify(text, "", NOW)
        assert code == caught.value.code
    assert 2 == len(reports)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bytes the token that was used longest ago is forgotten, and one of many patterns takes their room."""
    known = authenticator()
    first, second = (token(claims(n=n)) for n in (1, 2))
    known.identify(first, "", NOW)
    size = known._known_bytes
    monkeypatch.setattr(authenticator_module, "KNOWN_BYTES", 100 * size)
    known.identify(second, "", NOW)
    known.identify(first, "", NOW)
    for n in range(99):
        known.identify(token(claims(m=n)), "", NOW)
    assert (100, 100 * size) == (len(known._known), known._known_bytes)
    verified = known.counters.verified
    known.identify(first, "", NOW)
    assert verified == known.counters.verified
    known.identify(second, "", NOW)
    assert verified + 1 == known.counters.verified
    large = token(claims(oncecast={"subscribe": [f"{n:035d}*" for n in range(64)]}))
    known.identify(large, "", NOW)
    assert 64 * 35 < 100 * size - (len(known._known) - 1) * size < 64 * 140
    with pytest.raises(Refusal, match="expired"):
        known.identify(large, "", NOW + 90)
    assert len(known._known) * size == known._known_bytes


def test_no_token_is_kept() -> None:
    """A copy of the memory has no credentials in it."""
    known = authenticator()
    text = token()
    known.identify(text, "", NOW)
    assert text not in repr(known._known)


def test_a_key_is_of_a_server() -> None:
    """A key has no end. Its prefix distinguishes it from a token."""
    assert Identity("192.0.2.1", "shop", "server") == authenticator().identify(KEY, "192.0.2.1", NOW)
    with pytest.raises(Refusal, match="does not know that key"):
        authenticator().identify("ock_x", "", NOW)


def test_a_server_without_keys_for_tokens() -> None:
    """The refusal says that the server takes no tokens."""
    only = Authenticator(None, ServerKeys([hash_line("shop", KEY)]))
    for text, kind in ((token(), "no tokens"), ("Bearer", "no credentials of this kind")):
        with pytest.raises(Refusal, match=kind):
            only.identify(text, "", NOW)
