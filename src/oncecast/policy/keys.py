"""The keys that tokens are verified with: shared secrets, public keys in PEM, and sets of JSON Web Keys (RFC 7517).

Invariant: a key is bound to one algorithm when it is read, so no token can choose how a key is used (RFC 8725 §3.1):
an RSA public key never serves as the secret of HS256. Private keys and keys that are too weak are refused.

To add an algorithm, add it to `ALGORITHMS`, and say in `_algorithm_of` which keys are its own. PyJWT and cryptography
are imported when the first key is read, as a server without tokens does not need them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import ConfigurationError

__all__ = [
    "ALGORITHMS",
    "SECRET_BYTES",
    "AlgorithmName",
    "KeySet",
    "VerifyingKey",
    "parse_jwk_set",
    "parse_pem",
    "parse_secret",
]

AlgorithmName = Literal["HS256", "RS256", "ES256", "EdDSA"]
ALGORITHMS: tuple[AlgorithmName, ...] = get_args(AlgorithmName)

SECRET_BYTES = 32  # RFC 7518 §3.2: as long as the hash
RSA_BITS = 2048  # RFC 7518 §3.3
MAX_KEYS = 64  # of a set; issuers have two or three
KID_CHARS = 256
NOT_A_SET = "This is not a set of JSON Web Keys"
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)

MAKE_A_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"  # noqa: S105 - a command, no secret


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """A key, the one algorithm that it is for, and its `kid` where it has one."""

    algorithm: AlgorithmName
    material: Any  # bytes, or a public key of `cryptography`
    kid: str | None = None

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return whether this key made the signature (RFC 7515 §5.2)."""
        import jwt

        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return bool(algorithm.verify(signed, self.material, signature))


class KeySet:
    """The keys of one server. It does not change: other keys are another set."""

    __slots__ = ("_anonymous", "_by_kid", "algorithms")

    def __init__(self, keys: Iterable[VerifyingKey] = ()) -> None:
        keys = tuple(keys)
        self.algorithms = frozenset(key.algorithm for key in keys)
        self._anonymous = tuple(key for key in keys if key.kid is None)
        self._by_kid: dict[str, tuple[VerifyingKey, ...]] = {}
        for key in keys:
            if key.kid is not None:
                self._by_kid[key.kid] = (*self._by_kid.get(key.kid, ()), key)

    def find(self, algorithm: str, kid: str | None) -> tuple[VerifyingKey, ...]:
        """Return the keys that may have signed a token of this head.

        With a `kid`, these are the keys of that name, and those that have none, as a secret has. Without one, all.
        """
        named = [key for keys in self._by_kid.values() for key in keys] if kid is None else self._by_kid.get(kid, ())
        return tuple(key for key in (*named, *self._anonymous) if key.algorithm == algorithm)

    def __len__(self) -> int:
        return len(self._anonymous) + sum(map(len, self._by_kid.values()))


def parse_secret(secret: str, where: str) -> VerifyingKey:
    """Return the key of a shared secret, whose UTF-8 is the key. Raises `ConfigurationError` for one that is short."""
    material = secret.encode()
    if _PEM.search(material) is not None:
        raise ConfigurationError(f"{where} is a key in PEM, which is no secret: name its file in public_key_file")
    if len(material) < SECRET_BYTES:
        raise ConfigurationError(
            f"{where} has {len(material)} bytes, and HS256 needs {SECRET_BYTES}: make one with {MAKE_A_SECRET}"
        )
    return VerifyingKey("HS256", material)


def parse_pem(text: bytes, where: str) -> list[VerifyingKey]:
    """Return the public keys and certificates of a PEM file, one or several. Raises `ConfigurationError`."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from cryptography.x509 import load_pem_x509_certificate

    keys = []
    for block in _PEM.finditer(text):
        label = block[1].decode()
        if "PRIVATE" in label:
            raise ConfigurationError(
                f"{where} holds a private key, which only the issuer of the tokens may have: give the public one, as "
                "`openssl pkey -pubout` writes it"
            )
        try:
            if label == "CERTIFICATE":
                material: Any = load_pem_x509_certificate(block[0]).public_key()
            else:
                material = load_pem_public_key(block[0])
        except Exception:  # noqa: BLE001 - cryptography raises several kinds, UnsupportedAlgorithm among them
            raise ConfigurationError(f"{where} has a block {label} that is no public key in PEM") from None
        algorithm = _algorithm_of(material)
        if algorithm is None:
            raise ConfigurationError(
                f"{where} has a key of another kind: give RSA of {RSA_BITS} bits or more, EC on P-256, or Ed25519"
            )
        keys.append(VerifyingKey(algorithm, material))
    if not keys:
        raise ConfigurationError(f"{where} has no public key in PEM: write one with `openssl pkey -pubout`")
    if len(keys) > MAX_KEYS:
        raise ConfigurationError(f"{where} has over {MAX_KEYS} keys: keep those whose tokens have not ended")
    return keys


def parse_jwk_set(text: bytes) -> list[VerifyingKey]:
    """Return the keys of a JWK set (RFC 7517 §5) that can be used here. Others are skipped, as the RFC says.

    Symmetric and private keys are skipped too: what a URL hands out is no secret. Raises `ValueError` with one line for
    what is no such set, or has no key that can be used.
    """
    try:
        document = json.loads(text)
        listed = document["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(NOT_A_SET) from None
    if not isinstance(listed, list):
        raise ValueError(NOT_A_SET)
    if len(listed) > MAX_KEYS:
        raise ValueError(f"The set has over {MAX_KEYS} keys")
    keys = [key for key in map(_parse_jwk, listed) if key is not None]
    if not keys:
        raise ValueError("The set has no public key for RS256, ES256 or EdDSA")
    return keys


def _parse_jwk(jwk: object) -> VerifyingKey | None:
    import jwt

    if not isinstance(jwk, dict) or "d" in jwk or jwk.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    kid = jwk.get("kid")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= KID_CHARS)):
        return None
    try:
        expected = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[jwk["kty"]]
        material = jwt.get_algorithm_by_name(expected).from_jwk(jwk)
    except Exception:  # noqa: BLE001 - whatever is wrong with one key, the others of the set hold
        return None
    algorithm = _algorithm_of(material)
    names = (algorithm, "Ed25519") if algorithm == "EdDSA" else (algorithm,)  # RFC 9864 §2.2
    if algorithm is None or jwk.get("alg", algorithm) not in names:
        return None
    return VerifyingKey(algorithm, material, kid)


def _algorithm_of(material: object) -> AlgorithmName | None:
    """Return the one algorithm of a public key; None for a key that is of no use here, a private one too."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if isinstance(material, RSAPublicKey):
        return "RS256" if material.key_size >= RSA_BITS else None
    if isinstance(material, EllipticCurvePublicKey):
        return "ES256" if isinstance(material.curve, SECP256R1) else None
    return "EdDSA" if isinstance(material, Ed25519PublicKey) else None
