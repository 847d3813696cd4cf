"""Keys: each is bound to one algorithm as it is read, and what can't serve is refused with a line that says why."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from oncecast.errors import ConfigurationError
from oncecast.policy.keys import KeySet, VerifyingKey, parse_jwk_set, parse_pem, parse_secret
from tests.token_rig import SECRET, private_key, private_pem, public_pem

PUBLIC = ["RS256", "ES256", "EdDSA"]


def jwk(algorithm: str, **more: Any) -> dict[str, Any]:
    """Return the public key as a JWK."""
    key = jwt.get_algorithm_by_name(algorithm).to_jwk(private_key(algorithm).public_key(), as_dict=True)
    return {**key, **more}


def jwk_set(*keys: object) -> bytes:
    """Return a JWK set."""
    return json.dumps({"keys": keys}).encode()


def test_secrets() -> None:
    """A secret is for HS256 alone; one that is short, or is a public key, is refused with what to do."""
    assert VerifyingKey("HS256", SECRET.encode()) == parse_secret(SECRET, "auth.secret")
    assert b"\xc3\xa9" * 16 == parse_secret("é" * 16, "auth.secret").material
    with pytest.raises(
        ConfigurationError, match=r"auth.secret has 31 bytes, and HS256 needs 32: make one with python3"
    ):
        parse_secret("x" * 31, "auth.secret")
    with pytest.raises(
        ConfigurationError, match="is a key in PEM, which is no secret: name its file in public_key_file"
    ):
        parse_secret(public_pem(private_key("RS256")).decode(), "auth.secret")


@pytest.mark.parametrize("algorithm", PUBLIC)
def test_public_keys(algorithm: str) -> None:
    """The kind of a public key says its algorithm, whatever a token says."""
    (key,) = parse_pem(public_pem(private_key(algorithm)), "f")
    assert (algorithm, None) == (key.algorithm, key.kid)


def test_several_keys_of_a_file() -> None:
    """A file may have the keys of a rotation, and text between them."""
    text = b"old\n" + public_pem(private_key("RS256")) + b"new\n" + public_pem(private_key("ES256"))
    assert ["RS256", "ES256"] == [key.algorithm for key in parse_pem(text, "f")]


BAD_PEM: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "f has no public key in PEM"),
    "damaged": (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "f has a block PUBLIC KEY that is no"),
    "private": (private_pem(private_key("ES256")), "f holds a private key, which only the issuer"),
    "weak RSA": (rsa.generate_private_key(65537, 1024), "f has a key of another kind"),
    "another curve": (ec.generate_private_key(ec.SECP384R1()), "f has a key of another kind"),
    "Ed448": (ed448.Ed448PrivateKey.generate(), "f has a key of another kind"),
    "DSA": (dsa.generate_private_key(1024), "f has a key of another kind"),
    "too many": (public_pem(private_key("EdDSA")) * 65, "f has over 64 keys"),
}


@pytest.mark.parametrize("name", BAD_PEM)
def test_files_that_can_not_serve(name: str) -> None:
    """Each such file is an error of one line that names it."""
    given, message = BAD_PEM[name]
    if not isinstance(given, bytes):
        given = given.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigurationError) as caught:
        parse_pem(given, "f")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_keys_are_found_by_kid_and_algorithm() -> None:
    """A kid names the keys of that name, and those that have none; another algorithm never finds a key."""
    a, b = VerifyingKey("RS256", "a", "1"), VerifyingKey("ES256", "b", "1")
    c, d = VerifyingKey("RS256", "c", "2"), VerifyingKey("HS256", b"d")
    keys = KeySet([a, b, c, d])
    assert (a,) == keys.find("RS256", "1")
    assert (b,) == keys.find("ES256", "1")
    assert (a, c) == keys.find("RS256", None)
    assert (d,) == keys.find("HS256", "1")
    assert () == keys.find("RS256", "3")
    assert () == keys.find("none", None)
    assert 4 == len(keys)


def test_a_set_of_keys() -> None:
    """Keys of each algorithm are read with their kid; Ed25519 is another name of EdDSA."""
    keys = parse_jwk_set(
        jwk_set(jwk("RS256", kid="r", alg="RS256", use="sig"), jwk("ES256"), jwk("EdDSA", alg="Ed25519"))
    )
    assert [("RS256", "r"), ("ES256", None), ("EdDSA", None)] == [(key.algorithm, key.kid) for key in keys]


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
        jwk("RS256", use="enc"),
        jwk("RS256", key_ops=["encrypt"]),
        jwk("RS256", key_ops="verify"),
        jwk("RS256", alg="PS256"),
        jwk("RS256", alg="HS256"),
        jwk("RS256", alg="Ed25519"),
        jwk("RS256", kid=7),
        jwk("RS256", kid="k" * 257),
        jwk("RS256", n="AQAB"),
        jwk("RS256", n=5),
        jwk("ES256", x="AA"),
        jwk("EdDSA", crv="X25519"),
        {**jwk("EdDSA"), "d": "AA"},
        {"kty": ["RSA"]},
        {"kty": "RSA"},
        "RSA",
        None,
    ],
)
def test_keys_of_a_set_that_are_skipped(key: object) -> None:
    """One key that can't be used does not harm the others, and no symmetric key is taken from a set that is public."""
    assert ["ES256"] == [each.algorithm for each in parse_jwk_set(jwk_set(key, jwk("ES256")))]
    with pytest.raises(ValueError, match="no public key"):
        parse_jwk_set(jwk_set(key))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"5", b"\xff", b'{"keys": 5}', b'{"keys": {}}', b"[" * 100_000, jwk_set(*[jwk("ES256")] * 65)]
)
def test_what_is_no_set(text: bytes) -> None:
    """A text that is no set of keys raises one kind of error, however deep its JSON nests."""
    with pytest.raises(ValueError, match=r"^(This is not a set of JSON Web Keys|The set has over 64 keys)$"):
        parse_jwk_set(text)
