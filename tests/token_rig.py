"""What the tests of tokens share: keys that are made once, and tokens that hold whatever a test wants."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

NOW = 1_764_000_000.0
SECRET = "a secret of 32 bytes, or of more."


@cache
def private_key(algorithm: str) -> Any:
    """Return a private key, always the same one in a run."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> bytes:
    """Return the public key of a private one."""
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(key: Any) -> bytes:
    """Return a private key without a passphrase."""
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def claims(**more: Any) -> dict[str, Any]:
    """Return the claims of a token of ann that lives for a minute; None leaves one out."""
    all_claims = {"sub": "ann", "iat": int(NOW), "exp": int(NOW) + 60, **more}
    return {name: value for name, value in all_claims.items() if value is not None}


def token(
    payload: Mapping[str, Any] | bytes | None = None,
    *,
    key: Any = SECRET,
    algorithm: str = "HS256",
    head: Mapping[str, Any] | bytes | None = None,
) -> str:
    """Return a token with a right signature around any head and claims; bytes are taken as they are."""
    head = {"alg": algorithm, **(head or {})} if not isinstance(head, bytes) else head
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, payload or claims())]
    signed = ".".join(map(encoded, parts))
    material = key.encode() if isinstance(key, str) else key
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), material)
    return f"{signed}.{encoded(signature)}"


def encoded(data: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
