"""An operator of NATS, one account with JetStream and its users, as JWTs: what the program `nsc` makes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from typing import Any

import nkeys


class Key:
    """A key pair of a role."""

    def __init__(self, role: int) -> None:
        self.seed = bytes(nkeys.encode_seed(os.urandom(32), role)).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: str, name: str, kind: str, **claims: Any) -> str:
        """Return the JWT that this key gives a subject."""
        body = {
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject,
            "name": name,
            "nats": {"type": kind, "version": 2, **claims},
        }
        body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        signed = ".".join(_encoded(json.dumps(each).encode()) for each in (head, body))
        return f"{signed}.{_encoded(self._pair.sign(signed.encode()))}"


class Accounts:
    """An operator, and an account with JetStream that has no limit."""

    def __init__(self) -> None:
        self.operator = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self.account, self.system = Key(nkeys.PREFIX_BYTE_ACCOUNT), Key(nkeys.PREFIX_BYTE_ACCOUNT)
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        store = ("mem_storage", "disk_storage", "streams", "consumer")
        plain: dict[str, Any] = {**dict.fromkeys(names, -1), "wildcards": True}
        limits = {**plain, **dict.fromkeys(store, -1)}
        self._account = self.operator.sign(self.account.public, "shop", "account", limits=limits)
        self._system = self.operator.sign(self.system.public, "SYS", "account", limits=plain)

    def settings(self) -> str:
        """Return the server's settings."""
        operator = self.operator.sign(self.operator.public, "operator", "operator")
        accounts = f"{self.account.public}: {self._account}, {self.system.public}: {self._system}"
        places = f"system_account: {self.system.public}\nresolver_preload: {{ {accounts} }}\n"
        return f"operator: {operator}\nresolver: MEMORY\n{places}"

    def credentials(self) -> str:
        """Return the credentials of a new user."""
        user = Key(nkeys.PREFIX_BYTE_USER)
        limits = {"subs": -1, "data": -1, "payload": -1}
        jwt = self.account.sign(user.public, "ann", "user", **limits)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
