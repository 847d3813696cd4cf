"""Settings that are each well formed but can't hold together.

Invariant: an error names both settings, and the source of the one that is most likely wrong. A broker's URL is never
repeated in one, as it can hold a password.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import NoReturn

from ...errors import ConfigurationError
from ...policy.limits import longest_url
from ...policy.server_keys import ServerKeys
from ..brokers import BUILDERS
from ..cores import worker_count
from ..jwks import check_url
from ..settings import DEFAULT_BROKER, MEMORY, SQLITE, Settings, has_keys, may_be_reached

__all__ = ["OPEN_CURE", "check_listening", "check_together", "find_unused"]

_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 6265 §4.1.1

OPEN_CURE = 'say who may subscribe and publish in tables [channels."PATTERN"], or give --public if it is meant'


def check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for the first contradiction. `sources` is as `Loaded` has it."""
    _check_auth(settings, sources)
    _check_broker(settings, sources)
    _check_sizes(settings, sources)
    _check_body(settings, sources)
    _check_url(settings, sources)


def check_listening(settings: Settings, sources: Mapping[str, str]) -> None:
    """Do the same for the settings of a server that listens, which an `Oncecast` in an application does not."""
    _check_tls(settings, sources)
    _check_address(settings, sources)
    _check_proxies(settings, sources)


def find_unused(settings: Settings, sources: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that was given, and has no effect without another one."""
    source = sources["tls_client"]
    if settings.tls_client_ca is None and (settings.tls or settings.tls_cert) and source != "default":
        text = "has no effect, as no client is asked for a certificate: name the CAs in tls_client_ca"
        return [f"{_named(source, 'tls_client')}: {text}"]
    return []


def _check_tls(settings: Settings, sources: Mapping[str, str]) -> None:
    for given, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(settings, given) and not getattr(settings, missing):
            _fail(sources, given, f"TLS needs tls_cert and tls_key, and {missing} is not set: set both or neither")
    certs, keys = len(settings.tls_cert), len(settings.tls_key)
    if certs != keys:
        _fail(sources, "tls_key", f"there are {certs} in tls_cert and {keys} here: give a key for each, in its order")
    if settings.tls and not (settings.dev or settings.tls_cert):
        text = "the certificate that the server makes is for development: give --dev, or tls_cert and tls_key"
        _fail(sources, "tls", text)
    if settings.tls_client_ca is not None and not (settings.tls or settings.tls_cert):
        _fail(sources, "tls_client_ca", "only TLS has certificates of clients: set tls_cert and tls_key too")


def _check_auth(settings: Settings, sources: Mapping[str, str]) -> None:
    auth = settings.auth
    if auth.secret is not None and auth.secret_file is not None:
        _fail(sources, "auth.secret", "auth.secret and auth.secret_file are both set: give the secret in one place")
    if auth.jwks_url is not None:
        try:
            check_url(auth.jwks_url)
        except ConfigurationError as error:
            _fail(sources, "auth.jwks_url", str(error))
    if has_keys(auth):
        ServerKeys(auth.server_keys)
        if auth.cookie is not None and not _COOKIE.fullmatch(auth.cookie):
            _fail(sources, "auth.cookie", "auth.cookie is not the name of a cookie: use letters, digits, - and _")
        return
    for key in ("cookie", "issuer", "audience", "algorithms"):
        if getattr(auth, key):
            text = f"auth.{key} is set, and no key to verify tokens with: set secret_file, public_key_file or jwks_url"
            _fail(sources, f"auth.{key}", text)


def _check_address(settings: Settings, sources: Mapping[str, str]) -> None:
    if may_be_reached(settings) or _is_loopback(settings.host):
        return
    every = "binding to all interfaces" if settings.host in ("0.0.0.0", "::") else f"binding to {settings.host}"  # noqa: S104
    _fail(sources, "host", f"{every} lets anyone publish who can reach it, as there are no access rules: {OPEN_CURE}")


def _check_proxies(settings: Settings, sources: Mapping[str, str]) -> None:
    if settings.proxy_protocol and not settings.trusted_proxies:
        text = "the PROXY protocol is taken from trusted_proxies only, and there are none: name your proxies' addresses"
        _fail(sources, "proxy_protocol", text)


def _check_broker(settings: Settings, sources: Mapping[str, str]) -> None:
    scheme, colon, rest = settings.broker.partition("://")
    if not colon or scheme not in BUILDERS or (not rest and settings.broker != MEMORY):
        known = ", ".join(f"{name}://" for name in BUILDERS)
        if not colon and scheme in BUILDERS:
            whole = MEMORY if f"{scheme}://" == MEMORY else f"{scheme}://…"
            _fail(sources, "broker", f"not a broker's URL: {scheme} is one with its slashes, {whole}")
        if scheme in BUILDERS and scheme != "sqlite":
            _fail(sources, "broker", f"there is no host in {scheme}://: name one, as in {scheme}://127.0.0.1")
        _fail(sources, "broker", f"not a broker's URL: use one of {known}, as in {DEFAULT_BROKER}")
    if scheme == "sqlite" and not settings.broker.startswith(SQLITE):
        text = "the path of a file begins after three slashes, as in sqlite:///app.db, or four for /var/lib/app.db"
        _fail(sources, "broker", text)
    if settings.durability == "fsync" and not settings.broker.startswith(SQLITE):
        cure = f'use broker = {DEFAULT_BROKER}, or durability = "process"'
        _fail(sources, "durability", f"fsync is for a broker's file, and the broker is {scheme}://; {cure}")
    if settings.broker != MEMORY:
        return
    if (count := worker_count(settings.workers)) > 1:
        text = f"{count} processes can't share the broker {MEMORY}; use broker = {DEFAULT_BROKER}, or workers = 1"
        _fail(sources, "workers", text)


def _check_sizes(settings: Settings, sources: Mapping[str, str]) -> None:
    limits, kept = settings.limits, settings.retention
    head = {"limits.url_bytes": limits.url_bytes}, {"limits.header_bytes": limits.header_bytes}, "a head has its URL"
    log = (
        {"limits.message_bytes": limits.message_bytes},
        {"retention.bytes": kept.bytes},
        "the log in memory must hold a message",
    )
    for small, large, why in (head, log) if settings.broker == MEMORY else (head,):  # a file keeps what memory does not
        ((name, size),) = small.items()
        ((other, bound),) = large.items()
        if size > bound:
            key = other if sources[name] == "default" else name
            _fail(sources, key, f"{name} = {size} is above {other} = {bound}, but {why}: lower {name} or raise {other}")


def _check_body(settings: Settings, sources: Mapping[str, str]) -> None:
    limits = settings.limits
    body, message = "limits.body_bytes", "limits.message_bytes"
    if limits.body_bytes < limits.message_bytes and sources[body] != "default":
        text = (
            f"{body} = {limits.body_bytes} is below {message} = {limits.message_bytes}, so a message that a WebSocket "
            f"takes could not be posted: raise {body}, leave it out, or lower {message}"
        )
        _fail(sources, body, text)


def _check_url(settings: Settings, sources: Mapping[str, str]) -> None:
    limits = settings.limits
    longest = longest_url(limits.channels_per_subscription)
    if limits.url_bytes < longest:
        url, count = "limits.url_bytes", "limits.channels_per_subscription"
        text = (
            f"{url} = {limits.url_bytes} is too little for a poll's URL with {count} = "
            f"{limits.channels_per_subscription} and the longest names: raise {url} to {longest} or more, or lower "
            f"{count}"
        )
        _fail(sources, count if sources[url] == "default" else url, text)


def _fail(sources: Mapping[str, str], key: str, text: str) -> NoReturn:
    raise ConfigurationError(f"{_named(sources[key], key)}: {text}")


def _named(source: str, key: str) -> str:
    # A variable, a flag or an argument is named after its key; a file is not.
    return source if source.startswith(("--", "ONCECAST_")) or source.endswith("=…)") else f"{source}: {key}"


def _is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the host. A name other than localhost could be any address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
