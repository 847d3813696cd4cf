"""From credentials to an identity: a token of a user, or a key of a server. They are verified nowhere else.

Invariant: refused credentials never give the identity of anybody: each call returns an identity or raises `Refusal`
(`unauthorized`, or `unavailable` while the issuer's keys are awaited). A token is verified once; after that its digest
is found in a bounded memory until it ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ..errors import Refusal
from .identity import Identity, grant_bytes
from .server_keys import KEY_PREFIX, ServerKeys
from .tokens import TokenVerifier, UnknownKey, looks_like_token

__all__ = ["AuthCounters", "Authenticator"]

KNOWN_BYTES = 4 << 20  # of tokens that are remembered: 8,000, or 300 of the most patterns; past it the oldest use goes
TOKEN_BYTES = 350  # the objects of one without its texts, measured with tracemalloc


@dataclass(slots=True)
class AuthCounters:
    """The number of verifications since the start."""

    verified: int = 0
    remembered: int = 0
    refused: int = 0


class Authenticator:
    """Verifies credentials. Without `verifier` no tokens are taken, and without keys no keys.

    `on_unknown_key` is called for a token that may be signed by a key that is not known. It must not block, and must be
    bounded: nothing about such a token is proved.
    """

    __slots__ = ("_known", "_known_bytes", "counters", "on_unknown_key", "server_keys", "verifier")

    def __init__(self, verifier: TokenVerifier | None, server_keys: ServerKeys) -> None:
        self.verifier: Final = verifier
        self.server_keys = server_keys
        self.counters = AuthCounters()
        self.on_unknown_key: Callable[[], None] = _do_nothing
        self._known: dict[bytes, Identity] = {}  # by the digest of the token, the most recently used at the end
        self._known_bytes = 0

    def identify(self, credential: str, address: str, now: float) -> Identity:
        """Return whose credential this is, at this address. `now` is in Unix seconds. Raises `Refusal`."""
        try:
            if credential.startswith(KEY_PREFIX):
                return replace(self.server_keys.find(credential), address=address)
            return self._identify(credential, address, now)
        except Refusal:
            self.counters.refused += 1
            raise

    def _identify(self, token: str, address: str, now: float) -> Identity:
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()  # no token is kept
        identity = self._known.pop(digest, None)
        if identity is not None and identity.lasts(now):
            self.counters.remembered += 1
        else:
            if identity is not None:
                self._known_bytes -= _size(identity)
            identity = self._verify(token, now)
            self.counters.verified += 1
            self._known_bytes += _size(identity)
            while self._known and self._known_bytes > KNOWN_BYTES:
                self._known_bytes -= _size(self._known.pop(next(iter(self._known))))
        if identity.address != address:
            identity = replace(identity, address=address)
        self._known[digest] = identity
        return identity

    def _verify(self, token: str, now: float) -> Identity:
        if self.verifier is None:
            kind = "tokens" if looks_like_token(token) else "credentials of this kind"
            raise Refusal("unauthorized", f"This server takes no {kind}: connect without them, or with a server's key.")
        try:
            return self.verifier.verify(token, now)
        except UnknownKey:
            self.on_unknown_key()
            raise


def _size(identity: Identity) -> int:
    return TOKEN_BYTES + grant_bytes(identity.subject, identity.subscribe, identity.publish)


def _do_nothing() -> None:
    """No keys are fetched."""
