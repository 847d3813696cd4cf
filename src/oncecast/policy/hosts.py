"""The hosts that a request may be for: its `Host` (RFC 9110 §7.2) against the setting `hosts`.

This is the guard against DNS rebinding. A page of `evil.example` may let that name resolve to 127.0.0.1; the browser
then takes our server for the page's own, and the `Origin` agrees with the `Host`. Only the name itself differs.
So a server that listens only on loopback answers to loopback names only, unless `hosts` names others.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import ConfigurationError, Refusal
from .authority import AUTHORITY_CHARS, is_loopback, parse_address, parse_authority

VERDICTS = 1024  # hosts whose verdict is remembered: a peer can make up any number of them


class Hosts:
    """The hosts that requests may be for.

    `patterns` are the setting's: a host name or address, `*.` and a name for all names below it, or `*` for any.
    Without patterns, `bound` decides, the addresses that the server listens on: while all are loopback, only loopback
    names and `own`, the name that was bound, are allowed; else any host is. Raises `ConfigurationError` for a bad
    pattern.
    """

    __slots__ = ("_allowed", "_any", "_loopback", "_suffixes", "_verdicts")

    def __init__(self, patterns: Iterable[str] = ("*",), bound: Iterable[str] = (), own: str = "") -> None:
        patterns = [check_pattern(pattern) for pattern in patterns]
        addresses = [address.partition("%")[0] for address in bound]
        self._loopback = not patterns and bool(addresses) and all(is_loopback(address) for address in addresses)
        self._any = "*" in patterns or not (patterns or self._loopback)
        self._suffixes = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))
        named = parse_authority(own) if self._loopback else None
        self._allowed = frozenset(patterns) if named is None else frozenset({named.host})
        self._verdicts: dict[str, bool] = {}

    def check(self, host: str | None) -> None:
        """Raise `Refusal` (`host_refused`) for a host that is not allowed. None, as HTTP/1.0 may have it, passes.

        No browser leaves `Host` out, so no page can make such a request.
        """
        if self._any or host is None:
            return
        allowed = self._verdicts.get(host)
        if allowed is None:
            allowed = self._allows(host)
            if len(host) <= AUTHORITY_CHARS:  # a longer one is refused at once, and makes no room for itself
                if len(self._verdicts) >= VERDICTS:
                    self._verdicts.clear()
                self._verdicts[host] = allowed
        if not allowed:
            raise Refusal(
                "host_refused",
                f"This server does not answer for the host {host[:100]!a}: add it to the setting `hosts`.",
            )

    def _allows(self, host: str) -> bool:
        authority = parse_authority(host)
        if authority is None:
            return False
        name = authority.host
        return name in self._allowed or name.endswith(self._suffixes) or (self._loopback and is_loopback(name))


def check_pattern(pattern: str) -> str:
    """Return a pattern of the setting `hosts` in its one spelling. Raises `ConfigurationError`."""
    if pattern == "*":
        return pattern
    wild = pattern.startswith("*.")
    name = pattern[2:] if wild else pattern
    if not wild and name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"
    authority = parse_authority(name)
    if authority is None or ":" in name.rpartition("]")[2] or (wild and parse_address(authority.host) is not None):
        raise ConfigurationError(
            f'{pattern[:100]!a} is not a host: write a name or an address without a port, "*.example.com" or "*"'
        )
    return f"*.{authority.host}" if wild else authority.host
