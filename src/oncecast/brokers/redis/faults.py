"""What errors of the library and of the server mean: one line for the operator, which says what to do.

`Lost` is for a session that is of no use any more, `Refusal` for publishes that can't be taken now,
`ConfigurationError` for what only another setting mends. No text has a password: see `without_secrets`.
"""

from __future__ import annotations

import socket
import ssl

import redis.exceptions

from ...errors import ConfigurationError, Refusal
from ..address import Address, connect_advice
from ..session import Lost

CONNECT_SECONDS = 1.5  # to one host, so that a second one still has its turn
RETRY_SECONDS = 5  # after which a publish that was refused may be tried again

REPLICA = "it has become a replica"
FULL = "its memory is full: raise its maxmemory, or keep less by the retention settings"
FOREIGN = "a key of this prefix holds something else: name another one with ?prefix=NAME"
CREDENTIALS = "check its user and password"
CLOSED = "closed the connection: if it speaks TLS at this port, begin the URL with rediss://"
CLOSED_TLS = (
    "closed the connection: give tls_cert=FILE and tls_key=FILE, if it asks for a client's certificate it trusts"
)
ALERTS = ("CERTIFICATE_REQUIRED", "UNKNOWN_CA")  # what a server says of a client's certificate, if it says anything
PERMISSIONS = "give its user the keys and pub/sub channels of the prefix, and the commands of docs/how-to/redis.md"
CONNECTING = {  # by words of the server, or of TLS, that the library hands on
    "rotocol error": "it does not speak Redis's protocol: correct the port",
    "DB index": "it has no database of this number: correct the path of the URL, such as /0",
    "max number of clients": "it takes no more connections: raise its maxclients",
    "slot not served": "its cluster does not serve the slot of the log: see redis-cli --cluster check",
    "loading the dataset": "it is loading its data: wait until it has",
}


class NoLog(Exception):
    """The server has no log of this prefix."""


def of_connecting(error: BaseException, address: Address, host: str, port: int) -> Lost | ConfigurationError:
    """Return why a connection to one host could not be opened."""
    text = without_secrets(one_line(error), address)
    advice = next((advice for words, advice in CONNECTING.items() if words in text), None)
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError):
        return ConfigurationError(f"broker: {address}: {text.rstrip('.')}: {CREDENTIALS}")
    if isinstance(error, redis.exceptions.NoPermissionError):
        return ConfigurationError(f"broker: {address}: {text}: {PERMISSIONS}")
    if isinstance(error, redis.exceptions.ResponseError):
        return ConfigurationError(f"broker: {address}: {advice or text}")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if "closed by server" in text or any(alert in text for alert in ALERTS):
        cause = ConnectionResetError()
    return Lost(_of_network(cause, address, host, port) or f"{host}:{port}: {advice or text}")


def _of_network(cause: OSError | None, address: Address, host: str, port: int) -> str | None:
    match cause:
        case ssl.SSLError():
            return f"{host}:{port}: {connect_advice(cause, one_line(cause), address)}"
        case socket.gaierror():
            return f"the host {host} can't be resolved ({cause.strerror}): correct the URL"
        case ConnectionRefusedError():
            return f"{host}:{port} refuses connections: start the server, or correct the URL"
        case ConnectionResetError() | BrokenPipeError():
            return f"{host}:{port} {CLOSED_TLS if address.tls else CLOSED}"
        case TimeoutError():
            advice = (
                "check that it speaks TLS at this port"
                if address.tls
                else "check the address, and firewalls on the way"
            )
            return f"{host}:{port} did not answer within {CONNECT_SECONDS:g} s: {advice}"
    return None


def meaning(error: redis.exceptions.ResponseError) -> Exception:
    """Return what a refused command means."""
    text = one_line(error)
    if isinstance(error, redis.exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return _not_now(FULL)
    if text.startswith(("MISCONF", "NOREPLICAS")):
        return _not_now(text)
    if text.startswith("NOLOG"):
        return NoLog(text)
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return Lost(REPLICA)
    if isinstance(error, redis.exceptions.NoPermissionError) or "can't run this command" in text:
        return Lost(f"{text}: {PERMISSIONS}")
    if text.startswith("WRONGTYPE"):
        return Lost(FOREIGN)
    return Lost(text)


def of_publishing(error: redis.exceptions.ResponseError) -> Exception:
    """Return what a refused publish means: what another session would be refused too is no reason to open one."""
    found = meaning(error)
    if isinstance(found, Lost) and str(found).endswith((PERMISSIONS, FOREIGN)):
        return _not_now(str(found))
    return found


def _not_now(text: str) -> Refusal:
    return Refusal("unavailable", f"The broker takes no messages now: {text}", retry_after=RETRY_SECONDS)


def lost(error: BaseException) -> Lost:
    """Return what a fault of an open connection means."""
    if isinstance(error, TimeoutError | redis.exceptions.TimeoutError):
        return Lost(f"it did not answer within {CONNECT_SECONDS:g} s")
    return Lost(one_line(error) or type(error).__name__)


def one_line(error: BaseException) -> str:
    """Return an error's text in one line of a bounded length."""
    return " ".join(str(error).split())[:200]


def without_secrets(text: str, address: Address) -> str:
    """Return a text without the password: a server may name the words of a command that it does not know."""
    return text.replace(address.password, "***") if address.password else text
