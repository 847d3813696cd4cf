"""Tokens: what is taken, and that everything else is refused with 401 and one line, without a key or I/O of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.policy.identity import Identity
from oncecast.policy.keys import KeySet, parse_pem, parse_secret
from oncecast.policy.tokens import (
    TOKEN_CHARS,
    TokenRules,
    TokenVerifier,
    UnknownKey,
    looks_like_token,
    read_unverified,
)
from tests.token_rig import NOW, SECRET, claims, encoded, private_key, public_pem, token

PUBLIC = [key for name in ("RS256", "ES256", "EdDSA") for key in parse_pem(public_pem(private_key(name)), "f")]
KEYS = KeySet([parse_secret(SECRET, "secret"), *PUBLIC])


def verify(text: str, now: float = NOW, keys: KeySet = KEYS, **rules: Any) -> Identity:
    """Verify a token with the keys of this file."""
    return TokenVerifier(keys, TokenRules(**rules)).verify(text, now)


def refusal(text: str, now: float = NOW, keys: KeySet = KEYS, **rules: Any) -> str:
    """Return why a token is refused."""
    with pytest.raises(Refusal) as caught:
        verify(text, now, keys, **rules)
    assert ("unauthorized", 401, 4401) == (caught.value.code, caught.value.error.status, caught.value.error.close)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 250
    return caught.value.message


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_a_token_of_each_algorithm(algorithm: str) -> None:
    """A token of each algorithm proves its user and grants, and ends at its exp plus the leeway."""
    key = SECRET if algorithm == "HS256" else private_key(algorithm)
    grants = {"subscribe": ["user.{sub}.*", "news"], "publish": ["*"]}
    text = token(claims(oncecast=grants), key=key, algorithm=algorithm, head={"kid": "any", "typ": "JWT"})
    expected = Identity("", "ann", "token", ("user.ann.*", "news"), ("*",), NOW - 30, NOW + 60 + 30)
    assert expected == verify(text)
    damaged = text[:-8] + ("A" if text[-8] != "A" else "B") + text[-7:]
    assert "The token's signature is wrong" in refusal(damaged)
    others = KeySet(key for key in (*PUBLIC, parse_secret("z" * 32, "s")) if key.algorithm != algorithm)
    assert "not known here" in refusal(text, keys=others)


def test_what_a_token_grants() -> None:
    """Without the claim the rules decide; with it, what it does not mention is not granted."""
    assert (None, None) == (verify(token()).subscribe, verify(token()).publish)
    writer = verify(token(claims(oncecast={"publish": ["a"]})))
    assert ((), ("a",)) == (writer.subscribe, writer.publish)
    assert verify(token(claims(sub=None))).subject is None


def test_an_issue_that_is_not_named_is_the_earliest_one() -> None:
    """A token without `iat` is as old as it can be, so a revocation holds for it."""
    assert NOW + 60 - 1000 - 30 == verify(token(claims(iat=None)), max_seconds=1000.0).issued


HS_KEY = "is an RSA key in PEM"
HEADS: dict[str, tuple[Any, str]] = {
    "none": ({"alg": "none"}, "Tokens signed with 'none' are not taken here"),
    "None": ({"alg": "None"}, "Tokens signed with 'None' are not taken here"),
    "no alg": (b'{"typ":"JWT"}', "names no algorithm"),
    "alg a number": ({"alg": 5}, "names no algorithm"),
    "alg a list": ({"alg": ["HS256"]}, "names no algorithm"),
    "another alg": ({"alg": "HS512"}, "Tokens signed with 'HS512' are not taken here"),
    "an alg that is long and wild": ({"alg": "\n\x1b[31m" + "x" * 500}, "are not taken here"),
    "embedded key": ({"jwk": {"kty": "oct", "k": "AA"}}, "has jwk, which is not taken"),
    "remote key": ({"jku": "https://evil.example/keys"}, "has jku, which is not taken"),
    "remote certificate": ({"x5u": "https://evil.example/cert"}, "has x5u, which is not taken"),
    "embedded certificate": ({"x5c": ["AA"]}, "has x5c, which is not taken"),
    "an extension": ({"crit": ["b64"], "b64": False}, "has crit, which is not taken"),
    "kid a number": ({"kid": 5}, "kid is not a string"),
    "kid too long": ({"kid": "k" * 257}, "kid is not a string"),
    "alg twice": (b'{"alg":"none","alg":"HS256"}', "head can't be read"),
    "no object": (b'["HS256"]', "head must be a JSON object"),
    "no JSON": (b"HS256", "head can't be read"),
    "deep": (b"[" * 3000, "head can't be read"),
    "no UTF-8": (b'{"alg":"\xff"}', "head can't be read"),
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_are_refused(name: str) -> None:
    """A head chooses neither the algorithm nor the key (RFC 8725 §3.1)."""
    head, message = HEADS[name]
    assert message in refusal(token(head=head))


def test_an_rsa_public_key_is_no_secret() -> None:
    """HS256 with the bytes of the public key, which everybody has, verifies nothing (RFC 8725 §2.1)."""
    pem = public_pem(private_key("RS256"))
    (key,) = parse_pem(pem, "f")
    forged = token(key=pem.decode())
    assert "not known here" in refusal(forged, keys=KeySet([key]))
    assert "signature is wrong" in refusal(forged, keys=KEYS)
    assert "'HS256' are not taken here" in refusal(forged, keys=KEYS, algorithms=frozenset({"RS256"}))


def test_an_unknown_kid_has_an_error_of_its_own() -> None:
    """Where every key has a name, another one is a key that is not known: the caller may look for newer keys."""
    keys = KeySet([dataclasses.replace(PUBLIC[0], kid="1")])
    text = token(key=private_key("RS256"), algorithm="RS256", head={"kid": "2"})
    with pytest.raises(UnknownKey):
        verify(text, keys=keys)
    verify(token(key=private_key("RS256"), algorithm="RS256", head={"kid": "1"}), keys=keys)


CLAIMS: dict[str, tuple[Any, str]] = {
    "no exp": (claims(exp=None), "no exp"),
    "exp null": (b'{"exp":null}', "no exp"),
    "exp a text": (claims(exp="9999999999"), "exp is not a number of seconds"),
    "exp true": (claims(exp=True), "exp is not a number of seconds"),
    "exp negative": (claims(exp=-1), "exp is not a number of seconds"),
    "exp past the year 9999": (claims(exp=10**12), "exp is not a number of seconds"),
    "exp 1e400": (b'{"exp":1e400}', "claims can't be read"),
    "exp NaN": (b'{"exp":NaN}', "claims can't be read"),
    "exp Infinity": (b'{"exp":Infinity}', "claims can't be read"),
    "exp of 5000 digits": (b'{"exp":' + b"9" * 5000 + b"}", "claims can't be read"),
    "exp a list": (claims(exp=[1]), "exp is not a number of seconds"),
    "nbf a text": (claims(nbf="0"), "nbf is not a number of seconds"),
    "iat true": (claims(iat=True), "iat is not a number of seconds"),
    "exp twice": (b'{"exp":1,"exp":9999999999}', "claims can't be read"),
    "no object": (b"[]", "claims must be a JSON object"),
    "deep": (b"[" * 3000, "claims can't be read"),
    "no UTF-8": (b'{"sub":"\xff"}', "claims can't be read"),
    "sub a number": (claims(sub=5), "sub is not a string"),
    "sub empty": (claims(sub=""), "sub is not a string"),
    "sub too long": (claims(sub="x" * 256), "sub is not a string"),
    "sub with a line break": (claims(sub="a\nb"), "none of them a control character"),
    "sub with half a pair": (b'{"exp":1764000060,"sub":"\\ud800"}', "none of them a control character"),
    "oncecast a text": (claims(oncecast="*"), "oncecast is not an object"),
    "subscribe a text": (claims(oncecast={"subscribe": "news"}), "oncecast.subscribe is not a list"),
    "publish null": (claims(oncecast={"publish": None}), "oncecast.publish is not a list"),
    "too many": (claims(oncecast={"publish": ["a"] * 65}), "oncecast.publish is not a list of at most 64"),
    "no pattern": (claims(oncecast={"subscribe": ["a*b"]}), "no pattern"),
    "a name of ours": (claims(oncecast={"subscribe": ["_oncecast"]}), "no pattern"),
    "a number": (claims(oncecast={"subscribe": [5]}), "no pattern"),
    "no sub to fill in": (claims(sub=None, oncecast={"subscribe": ["user.{sub}"]}), "needs a sub"),
    "a sub that is a star": (claims(sub="*", oncecast={"subscribe": ["user.{sub}"]}), "needs a sub"),
    "a sub with a dot": (claims(sub="ann.b", oncecast={"subscribe": ["user.{sub}"]}), "needs a sub"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_that_are_refused(name: str) -> None:
    """Each with what is wrong, and nothing of what the token holds."""
    payload, message = CLAIMS[name]
    assert message in refusal(token(payload))


@pytest.mark.parametrize(
    "more, now, taken",
    [
        ({"exp": NOW + 60}, NOW + 89.9, True),
        ({"exp": NOW + 60}, NOW + 90, False),
        ({"nbf": NOW + 30}, NOW, True),
        ({"nbf": NOW + 31}, NOW, False),
        ({"iat": NOW + 30}, NOW, True),
        ({"iat": NOW + 31, "exp": NOW + 90}, NOW, False),
        ({"exp": NOW + 604_800}, NOW, True),
        ({"exp": NOW + 604_831}, NOW, False),
        ({"exp": NOW + 604_861, "iat": None}, NOW, False),
        ({"exp": NOW + 0.5}, NOW, True),
    ],
)
def test_the_times_of_a_token(more: dict[str, Any], now: float, taken: bool) -> None:
    """The exp, nbf and iat of a token count with a leeway of 30 s, and a token lives a week at most."""
    if taken:
        assert verify(token(claims(**more)), now).lasts(now)
    else:
        refusal(token(claims(**more)), now)


def test_the_end_that_an_identity_has_is_when_its_token_is_refused() -> None:
    """An identity ends exactly when its token is refused, so that no ended connection could open again with it."""
    text = token()
    expires = verify(text).expires
    assert expires is not None
    assert verify(text, expires - 0.001).lasts(expires - 0.001)
    assert "expired" in refusal(text, expires)


@pytest.mark.parametrize(
    "audience, aud, taken",
    [
        ((), None, True),
        ((), "other", False),
        (("us",), "us", True),
        (("us", "we"), ["they", "we"], True),
        (("us",), None, False),
        (("us",), [], False),
        (("us",), ["they"], False),
        (("us",), "usa", False),
        (("us",), 5, False),
        (("us",), ["us", 5], False),
        (("us",), {"us": 1}, False),
    ],
)
def test_the_audience(audience: tuple[str, ...], aud: object, taken: bool) -> None:
    """RFC 7519 §4.1.3: a token for others is refused, also where no audience is set."""
    text = token(claims(aud=aud))
    if taken:
        verify(text, audience=frozenset(audience))
    else:
        assert "aud" in refusal(text, audience=frozenset(audience))


def test_the_issuer() -> None:
    """`iss` is compared character by character."""
    verify(token(claims(iss="https://us")), issuer="https://us")
    for other in ("https://us/", None, 5, ["https://us"]):
        assert "another issuer" in refusal(token(claims(iss=other)), issuer="https://us")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.b.c.d",
        "..",
        token() + "=",
        token() + "\n",
        " " + token(),
        token().replace(".", ".."),
        "é" + token(),
        token() + "A" * TOKEN_CHARS,
        "A" + token()[1:].replace("a", "+"),
        token().rpartition(".")[0] + ".",
        "\ud800",
    ],
)
def test_what_is_no_token(text: str) -> None:
    """A text that is no token is refused, and a long one is refused before it is parsed."""
    assert refusal(text)


def test_base64_has_one_spelling() -> None:
    """Bits that no byte has must be 0, so that a token has one text."""
    head, payload, signature = token().split(".")
    twin = "B" if signature[-1] == "A" else chr(ord(signature[-1]) + 1)
    assert "damaged" in refusal(f"{head}.{payload}.{signature[:-1]}{twin}")


def test_a_form_and_a_look() -> None:
    """The parts of a token that are read without a proof are shown to people only, up to where they can't be read."""
    assert [True, False] == [looks_like_token(text) for text in (token(), "ock_x")]
    assert [{"alg": "HS256"}, claims()] == read_unverified(token())
    assert [{"alg": "HS256"}] == read_unverified(encoded(b'{"alg":"HS256"}') + ".!.x")
    assert [] == read_unverified("é")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "oncecast", "alg", "kid"])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, JSON), st.dictionaries(NAMES, JSON))
def test_whatever_a_signed_token_holds(head: dict[str, Any], payload: dict[str, Any]) -> None:
    """A signed token with any content proves an identity or is refused, and raises no other exception."""
    text = token(json.dumps(payload).encode(), head={"alg": "HS256", **head})
    with contextlib.suppress(Refusal):
        assert verify(text).lasts(NOW)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: ".".join([encoded(data)] * 3)))
def test_whatever_text(text: str) -> None:
    """No text is a token that was not signed."""
    refusal(text)
