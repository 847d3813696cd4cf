"""Tokens of users: JSON Web Tokens (RFC 7519) in compact form (RFC 7515 §3.1), verified as RFC 8725 advises.

Invariants: whatever a token holds, `verify` returns an identity or raises a `Refusal`; nothing in a token leads to a
key that the settings do not name, and nothing is read or fetched for one; no message repeats what a token holds, apart
from the name of its algorithm.

To read another claim, read it in `_read_claims`. PyJWT verifies signatures only, by the keys of `keys.py`: heads and
claims are read here, where numbers, types and repeated names are held to the grammar.
"""

from __future__ import annotations

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import Refusal
from .channels import fill, is_pattern
from .identity import Identity, Patterns
from .keys import ALGORITHMS, KID_CHARS, KeySet

__all__ = [
    "TOKEN_CHARS",
    "TokenRules",
    "TokenVerifier",
    "UnknownKey",
    "is_subject",
    "looks_like_token",
    "read_unverified",
]

TOKEN_CHARS = 8192  # what clients send at most; a token with the longest list of channels has about 6,000
SUBJECT_CHARS = 255  # the length that OpenID Connect Core §2 gives `sub`
PATTERNS = 64  # for each of subscribe and publish
LAST_SECOND = 253_402_300_799  # of the year 9999: no later time can be written as a date
AWAITED_SECONDS = 2.0  # the Retry-After while the issuer's keys are awaited
# RFC 7515 §4.1.2 to §4.1.5 and §4.1.11: keys that a token brings along, and extensions that must be understood.
REFUSED_HEADS = ("jwk", "jku", "x5u", "x5c", "crit")

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)", re.ASCII)
_NO_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """What a token must be. `algorithms` are those that are taken; `issuer` is its `iss`, `audience` may be in `aud`.

    `leeway` is the seconds by which clocks may differ, `max_seconds` the longest life that a token may have.
    """

    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    issuer: str | None = None
    audience: frozenset[str] = frozenset()
    leeway: float = 30.0
    max_seconds: float = 604_800.0


class UnknownKey(Refusal):
    """A token of an algorithm that is taken may have been signed by a key that is not known: by a newer one
    (`unauthorized`), or by one of an issuer whose keys are awaited (`unavailable`).
    """


def looks_like_token(text: str) -> bool:
    """Return whether a text has the form of a token, whatever it contains."""
    return len(text) <= TOKEN_CHARS and _COMPACT.fullmatch(text) is not None


def is_subject(text: str) -> bool:
    """Say whether a text can be the `sub` of a token that is taken here: short, and without control characters."""
    return 1 <= len(text) <= SUBJECT_CHARS and _NO_TEXT.search(text) is None


class TokenVerifier:
    """Verifies tokens against keys. It does no I/O, and reads no clock: time is passed in, in Unix seconds.

    `awaited` are the algorithms of an issuer whose keys have not been fetched yet: a token of these that no key here
    has signed may be the issuer's.
    """

    __slots__ = ("awaited", "keys", "rules")

    def __init__(self, keys: KeySet, rules: TokenRules, awaited: frozenset[str] = frozenset()) -> None:
        self.keys = keys
        self.rules = rules
        self.awaited = awaited

    def verify(self, token: str, now: float) -> Identity:
        """Return the identity that a token proves. Raises `Refusal` (`unauthorized`), or `UnknownKey`.

        Its `expires` is the token's `exp` and the leeway: from then on the token is refused. Its `issued` is `iat` less
        the leeway: the token can't be older.
        """
        parts = _COMPACT.fullmatch(token) if len(token) <= TOKEN_CHARS else None
        if parts is None:
            _refuse(f"This is not a token: send a JSON Web Token of at most {TOKEN_CHARS} characters, whole.")
        self._check_signature(_read_head(parts[1]), f"{parts[1]}.{parts[2]}".encode(), _decode(parts[3]))
        return self._check_claims(_read_object(_decode(parts[2]), "claims"), now)

    def _check_signature(self, head: dict[str, Any], signed: bytes, signature: bytes) -> None:
        algorithm, kid = head["alg"], head.get("kid")
        if algorithm not in self.rules.algorithms:
            taken = ", ".join(sorted(self.rules.algorithms))
            _refuse(f"Tokens signed with {algorithm[:20]!a} are not taken here: sign them with {taken}.")
        keys = self.keys.find(algorithm, kid)
        if not any(key.verifies(signed, signature) for key in keys):
            if algorithm in self.awaited:
                text = "The issuer's keys could not be fetched yet: try again in a moment."
                raise UnknownKey("unavailable", text, retry_after=AWAITED_SECONDS)
            if not keys:
                text = "The token is signed with a key that is not known here: get a fresh one."
                raise UnknownKey("unauthorized", text)
            _refuse("The token's signature is wrong: get a token from the issuer that this server trusts.")

    def _check_claims(self, claims: dict[str, Any], now: float) -> Identity:
        rules = self.rules
        self._check_parties(claims)
        expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
        begins = _seconds(claims, "nbf")
        if expires is None:
            _refuse("The token has no exp: let its issuer say when it ends.")
        if now >= expires + rules.leeway:
            _refuse("The token has expired: get a fresh one.")
        if max(begins or 0.0, issued or 0.0) > now + rules.leeway:
            _refuse("The token is not valid yet: compare the issuer's clock with this server's.")
        if expires - (now - rules.leeway if issued is None else issued) > rules.max_seconds + rules.leeway:
            _refuse(f"The token lives too long: let it end {rules.max_seconds:g} s after its issue, or sooner.")
        subject, subscribe, publish = _read_claims(claims)
        if issued is None:  # it may be as old as a token can be
            issued = expires - rules.max_seconds
        # Both by this server's clock, at the outside: the issuer's may be ahead by the leeway, or behind.
        return Identity("", subject, "token", subscribe, publish, issued - rules.leeway, expires + rules.leeway)

    def _check_parties(self, claims: dict[str, Any]) -> None:
        """Check `iss` and `aud` (RFC 7519 §4.1.1, §4.1.3)."""
        if self.rules.issuer is not None and claims.get("iss") != self.rules.issuer:
            _refuse("The token is of another issuer than the one that this server trusts.")
        audience = claims.get("aud", [])
        listed = [audience] if isinstance(audience, str) else audience
        if not (isinstance(listed, list) and all(isinstance(each, str) for each in listed)):
            _refuse("The token's aud is neither a string nor a list of strings.")
        # A token that names audiences must name this one, also where the settings have none.
        if (listed or self.rules.audience) and not self.rules.audience.intersection(listed):
            _refuse("The token is for another audience: let its issuer put this server's `audience` into aud.")


def read_unverified(token: str) -> list[dict[str, Any]]:
    """Return what can be read of a token's head and claims, for a person to look at: none of it is proved."""
    read = []
    for part in token.split(".")[:2]:
        try:
            read.append(_read_object(_decode(part), ""))
        except (Refusal, UnicodeEncodeError):
            break
    return read


def _read_head(part: str) -> dict[str, Any]:
    """Read a token's head (RFC 7515 §4)."""
    head = _read_object(_decode(part), "head")
    if not isinstance(head.get("alg"), str):
        _refuse("The token's head names no algorithm.")
    kid = head.get("kid")
    if not (kid is None or (isinstance(kid, str) and len(kid) <= KID_CHARS)):
        _refuse(f"The token's kid is not a string of at most {KID_CHARS} characters.")
    for name in REFUSED_HEADS:
        if name in head:
            _refuse(f"The token's head has {name}, which is not taken: keys are set at the server.")
    return head


def _read_claims(claims: dict[str, Any]) -> tuple[str | None, Patterns | None, Patterns | None]:
    """Return the subject, and what the token grants to subscribe and to publish."""
    subject = claims.get("sub")
    if subject is not None and not (isinstance(subject, str) and is_subject(subject)):
        _refuse(
            f"The token's sub is not a string of 1 to {SUBJECT_CHARS} characters, none of them a control character."
        )
    grants = claims.get("oncecast")
    if grants is None:
        return subject, None, None
    if not isinstance(grants, dict):
        _refuse('The token\'s claim oncecast is not an object: {"subscribe": [patterns], "publish": [patterns]}.')
    # What the claim does not mention is not granted.
    return subject, _patterns(grants, "subscribe", subject), _patterns(grants, "publish", subject)


def _patterns(grants: dict[str, Any], name: str, subject: str | None) -> Patterns:
    listed = grants.get(name, [])
    if not isinstance(listed, list) or len(listed) > PATTERNS:
        _refuse(f"The token's oncecast.{name} is not a list of at most {PATTERNS} patterns.")
    patterns = []
    for each in listed:
        if not isinstance(each, str) or not is_pattern(each):
            _refuse(f"The token's oncecast.{name} has an entry that is no pattern: use a name, a prefix and *, or *.")
        filled = fill(each, subject)
        if filled is None or not is_pattern(filled):
            _refuse(f"The token's oncecast.{name} has {{sub}}, which needs a sub of A-Z a-z 0-9 _ : @ - only.")
        patterns.append(filled)
    return tuple(patterns)


def _seconds(claims: dict[str, Any], name: str) -> float | None:
    """Return a NumericDate (RFC 7519 §2); None where there is none."""
    value = claims.get(name)
    if value is None:
        return None
    # A bool is an int to Python; NaN is neither above nor below a bound.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        _refuse(f"The token's {name} is not a number of seconds since 1970.")
    return float(value)


def _decode(part: str) -> bytes:
    """Decode base64url without padding (RFC 7515 §2), in its one spelling."""
    try:
        data = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        _refuse("The token is damaged: send it as it was issued.")
    if urlsafe_b64encode(data).rstrip(b"=") != part.encode():
        _refuse("The token is damaged: send it as it was issued.")
    return data


def _read_object(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object in UTF-8 in which no name stands twice (RFC 7515 §4, RFC 7519 §4)."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        _refuse(f"The token's {what} can't be read: it is not JSON, or a name or number in it is not allowed.")
    if not isinstance(value, dict):
        _refuse(f"The token's {what} must be a JSON object.")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _refuse(message: str) -> NoReturn:
    raise Refusal("unauthorized", message)
