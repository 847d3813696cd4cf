"""Where a broker on another machine is: its URL, taken apart, with its secrets kept out of every text.

`redis://user:password@host:6379/0?prefix=shop` names a scheme, a user, hosts, a path and options. A password may stand
in a file (`password_file=/run/secrets/redis`) or in an environment variable (`password_env=REDIS_PASSWORD`) instead.
`tls_ca`, `tls_cert` and `tls_key` are paths of PEM files; `tls_verify=no` takes any certificate.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ..errors import ConfigurationError

SECRETS = ("password_file", "password_env")
TLS = ("tls_ca", "tls_cert", "tls_key", "tls_verify")


class Address(msgspec.Struct, frozen=True):
    """A broker's URL. `str` of it has no user, no password and no options."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    path: str
    options: Mapping[str, str]
    tls: bool

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{hosts}" + (f"/{self.path}" if self.path else "")

    def __repr__(self) -> str:
        return f"Address({self})"

    def context(self) -> ssl.SSLContext | None:
        """Return the TLS context, or None without TLS. Raises `ConfigurationError` for files that can't be used."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.options.get("tls_ca"))
            if "tls_cert" in self.options:
                context.load_cert_chain(self.options["tls_cert"], self.options.get("tls_key"))
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"broker: a TLS file of {self} can't be used: {error}") from None
        if self.options.get("tls_verify") == "no":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_address(
    url: str,
    schemes: Mapping[str, bool],
    default_port: int,
    options: Collection[str],
    environ: Mapping[str, str] = os.environ,
) -> Address:
    """Take a URL apart. `schemes` says of each whether it is with TLS. Raises `ConfigurationError` in one line."""
    scheme, _, rest = url.partition("://")
    if scheme not in schemes or not rest:
        raise ConfigurationError(f"broker: begin the URL with one of {', '.join(f'{name}://' for name in schemes)}")
    where = f"broker: {scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
    try:
        parts = urlsplit(f"x://{rest}")
    except ValueError as error:
        raise ConfigurationError(f"{where}: this is not a URL: {error}") from None
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, colon, password = credentials.partition(":")
    given: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in (*options, *SECRETS, *TLS):
            known = ", ".join(sorted((*options, *SECRETS, *TLS)))
            raise ConfigurationError(f"{where}: there is no option {name}: use {known}")
        if name in given:
            raise ConfigurationError(f"{where}: {name} stands twice: give it once")
        given[name] = value
    if not schemes[scheme] and (unused := sorted(given.keys() & set(TLS))):
        secure = " or ".join(f"{name}://" for name, tls in schemes.items() if tls)
        raise ConfigurationError(f"{where}: {unused[0]} is for TLS: begin the URL with {secure}, or leave it out")
    if parts.fragment:
        raise ConfigurationError(f"{where}: a # in a password or an option is written %23")
    return Address(
        scheme,
        tuple(_host(each, default_port, where) for each in hosts.split(",")),
        unquote(user) or None if at else None,
        _secret("password", unquote(password) if colon else None, given, environ, where),
        unquote(parts.path.lstrip("/")),
        given,
        schemes[scheme],
    )


def connect_advice(error: BaseException, text: str, address: Address) -> str:
    """Return why no connection could be opened, and what to do about it; just the text where that is not known."""
    if isinstance(error, socket.gaierror):
        return f"its name can't be resolved ({error.strerror}): correct the URL"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: start the server, or correct the URL"
    if isinstance(error, ssl.SSLCertVerificationError):
        said = " ".join(error.verify_message.split()).rstrip(".")
        if "mismatch" in said or "not valid for" in said:
            return f"its certificate: {said}: write the host as the certificate has it"
        return f"its certificate: {said}: name the authority's file by ?tls_ca=FILE"
    asked = "it may ask for a certificate: ?tls_cert=FILE&tls_key=FILE"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {text}: {asked if address.tls else 'it may be a port of TLS'}"
    if isinstance(error, ConnectionError | EOFError) and address.tls and "tls_cert" not in address.options:
        # The port may not speak TLS. With TLS 1.3 a server may end a connection that is up already, which is seen as a
        # reset, a broken pipe or the end of what it sends.
        return f"{text or 'it closed the connection'}: check that it speaks TLS at this port; {asked}"
    return text


def whole(address: Address, name: str, default: int, least: int, most: int) -> int:
    """Return an option that is a whole number. Raises `ConfigurationError`."""
    text = address.options.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
        raise ConfigurationError(f"broker: {address}: {name} is a whole number from {least} to {most}")
    return int(text)


def secret(address: Address, name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return an option that is a secret, such as `NAME=`, or from `NAME_file=` or `NAME_env=`."""
    return _secret(name, address.options.get(name), address.options, environ, f"broker: {address}")


def _host(text: str, default_port: int, where: str) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ConfigurationError(f"{where}: {text} is no host: an IPv6 address stands in brackets")
        port = port[1:]
    elif ":" in text:
        host, _, port = text.rpartition(":")
    if not host:
        raise ConfigurationError(f"{where}: there is no host in the URL")
    if port and not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise ConfigurationError(f"{where}: {port} is no port: it is 1 to 65535, and a / in a password is written %2F")
    return host, int(port) if port else default_port


def _secret(
    name: str, given: str | None, options: Mapping[str, str], environ: Mapping[str, str], where: str
) -> str | None:
    """Return a secret, from the one place that has it."""
    file, variable = f"{name}_file", f"{name}_env"
    if (file in options) + (variable in options) + (given is not None) > 1:
        raise ConfigurationError(f"{where}: the {name} is given in several ways: use one")
    if file in options:
        try:
            return Path(options[file]).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{where}: {file} can't be read: {error}") from None
    if variable in options:
        if options[variable] not in environ:
            raise ConfigurationError(f"{where}: there is no variable {options[variable]}, named by {variable}")
        return environ[options[variable]]
    return given
