"""Logging in to NATS and TLS, against real servers: what works, and the one line of what does not."""

from __future__ import annotations

import logging
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import nkeys
import pytest

from oncecast.brokers.address import parse_address
from oncecast.brokers.nats.broker import OPTIONS, PORT, SCHEMES
from oncecast.brokers.nats.login import login
from oncecast.errors import ConfigurationError
from tests.brokers.certificates import Authority
from tests.brokers.nats.accounts import Accounts
from tests.brokers.nats.site import configured, tls_block
from tests.brokers.servers import Servers
from tests.brokers.starting import publish_once, refusal_at

KINDS = ("nats", "nats-newest")
SECRET = "s3cret/p@ss"
QUOTED = "s3cret%2Fp%40ss"


@pytest.fixture
def stack() -> object:
    """What a test has started; it is ended with the test."""
    with ExitStack() as made:
        yield made


def seed_of_a_user() -> tuple[str, str]:
    """Return a new seed and its public key."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    return bytes(seed).decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_and_a_password(
    servers: Servers,
    stack: ExitStack,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They come from the URL, a file or a variable. A wrong one is an error of one line without the password."""
    caplog.set_level(logging.DEBUG)
    server = configured(servers, stack, f'authorization {{ user: ann, password: "{SECRET}" }}\n', kind=kind)
    (tmp_path / "password").write_text(f"{SECRET}\n")
    monkeypatch.setenv("NATS_PASSWORD", SECRET)
    place = f"127.0.0.1:{server.port}"
    for url in (
        f"nats://ann:{QUOTED}@{place}",
        f"nats://ann@{place}?password_file={tmp_path / 'password'}",
        f"nats://ann@{place}?password_env=NATS_PASSWORD",
    ):
        assert publish_once(url) == b"1"
    for url in (f"nats://ann:{QUOTED}x@{place}", f"nats://bob:{QUOTED}@{place}", f"nats://{place}"):
        line = refusal_at(url)
        assert "check the user and password" in line
        assert f"nats://{place}" in line
        assert "s3cret" not in line
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("url", ["nats://{token}@{place}", "nats://:{token}@{place}", "nats://{place}?password_env=T"])
def test_a_token(servers: Servers, stack: ExitStack, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a password is a token, and so is a password without a user."""
    server = configured(servers, stack, 'authorization { token: "t0ken" }\n')
    monkeypatch.setenv("T", "t0ken")
    place = f"127.0.0.1:{server.port}"
    assert publish_once(url.format(token="t0ken", place=place)) == b"1"
    if "{token}" in url:
        line = refusal_at(url.format(token="t0kenx", place=place))
        assert "the token" in line
        assert "t0kenx" not in line


@pytest.mark.parametrize("kind", KINDS)
def test_an_nkey(
    servers: Servers,
    stack: ExitStack,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The nkey comes from a file or a variable. A wrong one is an error of one line that does not show it."""
    caplog.set_level(logging.DEBUG)
    seed, public = seed_of_a_user()
    other, _ = seed_of_a_user()
    server = configured(servers, stack, f"authorization {{ users: [ {{ nkey: {public} }} ] }}\n", kind=kind)
    (tmp_path / "seed").write_text(f"{seed}\n")
    monkeypatch.setenv("SEED", seed)
    monkeypatch.setenv("OTHER", other)
    assert publish_once(f"{server.url}?nkey_file={tmp_path / 'seed'}") == b"1"
    assert publish_once(f"{server.url}?nkey_env=SEED") == b"1"
    line = refusal_at(f"{server.url}?nkey_env=OTHER")
    assert "the key" in line
    for text in (line, caplog.text):
        assert seed not in text
        assert other not in text


@pytest.mark.parametrize("kind", KINDS)
def test_credentials(
    servers: Servers,
    stack: ExitStack,
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A credentials file of an operator's account, also from a variable; those of another account are refused."""
    caplog.set_level(logging.DEBUG)
    accounts = Accounts()
    server = configured(servers, stack, accounts.settings(), kind=kind)
    (tmp_path / "ann.creds").write_text(accounts.credentials())
    monkeypatch.setenv("CREDENTIALS", accounts.credentials())
    monkeypatch.setenv("FOREIGN", Accounts().credentials())
    assert publish_once(f"{server.url}?credentials={tmp_path / 'ann.creds'}") == b"1"
    assert publish_once(f"{server.url}?credentials_env=CREDENTIALS") == b"1"
    line = refusal_at(f"{server.url}?credentials_env=FOREIGN")
    assert "check the user" in line
    for text in (line, caplog.text):
        assert "SU" not in text
        assert "eyJ" not in text  # of a JWT


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://h?nkey_file=/nowhere/seed", "nkey_file /nowhere/seed can't be read: No such file"),
        ("nats://h?nkey_env=NOWHERE", "there is no variable NOWHERE, named by nkey_env"),
        ("nats://h?nkey_env=BAD", "nkey_env does not hold a user's seed, which begins with SU"),
        ("nats://h?nkey_env=OTHER_ROLE", "nkey_env does not hold a user's seed"),
        ("nats://h?credentials_env=BAD", "credentials_env does not hold a user's credentials"),
        ("nats://h?credentials_env=CUT", "credentials_env does not hold a user's credentials"),
        ("nats://h?credentials=/bin/sh", "credentials /bin/sh can't be read: it is not a text"),
        ("nats://ann:p@h?nkey_env=BAD", "the login is given in several ways"),
        ("nats://h?nkey_env=BAD&credentials_env=BAD", "the login is given in several ways"),
    ],
)
def test_what_can_not_be_a_login_is_one_line(url: str, said: str) -> None:
    """The error is raised before a connection is opened, and does not repeat the value."""
    environ = {
        "BAD": "secret",
        "OTHER_ROLE": "SU" + "7" * 56,
        "CUT": "-----BEGIN NATS USER JWT-----\nsecret\n-----BEGIN USER NKEY SEED-----",
    }
    address = parse_address(url, SCHEMES, PORT, OPTIONS)
    with pytest.raises(ConfigurationError) as raised:
        login(address, environ)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_keys_without_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the extra."""
    monkeypatch.setitem(sys.modules, "nkeys", None)
    address = parse_address("nats://h?nkey_env=SEED", SCHEMES, PORT, OPTIONS)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'oncecast[nats]'")):
        login(address, {"SEED": seed_of_a_user()[0]})


def test_a_user_that_may_not(servers: Servers, stack: ExitStack) -> None:
    """Permissions that lack JetStream's API end the start at once, with what the server denies."""
    denied = 'permissions: { publish: "none", subscribe: ">" }'
    server = configured(servers, stack, f"authorization {{ users: [ {{ user: ann, password: p, {denied} }} ] }}\n")
    line = refusal_at(f"nats://ann:p@127.0.0.1:{server.port}")
    assert "$JS.API.STREAM.INFO" in line.upper()
    assert "allow it for this user" in line


@pytest.mark.parametrize("kind", KINDS)
def test_tls(servers: Servers, stack: ExitStack, tmp_path: Path, kind: str) -> None:
    """A named authority is trusted. Another authority or host, and a server without TLS, are errors of one line."""
    authority, other = Authority(tmp_path, "ours"), Authority(tmp_path, "other")
    pair = authority.issue("server", "127.0.0.1")
    server = configured(servers, stack, tls_block(pair.cert, pair.key), kind=kind)
    assert publish_once(f"natss://127.0.0.1:{server.port}?tls_ca={authority.ca}") == b"1"
    assert publish_once(f"natss://localhost:{server.port}?tls_verify=no") == b"1"
    for url, said in (
        (f"natss://127.0.0.1:{server.port}?tls_ca={other.ca}", "name the authority's file by ?tls_ca=FILE"),
        (f"natss://127.0.0.1:{server.port}", "name the authority's file by ?tls_ca=FILE"),
        (f"nats://127.0.0.1:{server.port}", "name the authority's file by ?tls_ca=FILE"),
        (f"natss://localhost:{server.port}?tls_ca={authority.ca}", "write the host as the certificate has it"),
        (f"natss://127.0.0.1:{server.port}?tls_ca=/nowhere.pem", "a TLS file of"),
    ):
        assert said in refusal_at(url)


@pytest.mark.parametrize("kind", KINDS)
def test_a_certificate_of_the_client(servers: Servers, stack: ExitStack, tmp_path: Path, kind: str) -> None:
    """A server accepts a node with a certificate. Without one, the error names the options."""
    authority = Authority(tmp_path, "ours")
    pair, ours = authority.issue("server", "127.0.0.1"), authority.issue("client")
    server = configured(servers, stack, tls_block(pair.cert, pair.key, authority.ca), kind=kind)
    url = f"natss://127.0.0.1:{server.port}?tls_ca={authority.ca}"
    assert publish_once(f"{url}&tls_cert={ours.cert}&tls_key={ours.key}") == b"1"
    assert "tls_cert=FILE" in refusal_at(url)


def test_a_password_is_not_sent_without_tls(servers: Servers, stack: ExitStack, tmp_path: Path) -> None:
    """A `natss` URL at a server without TLS is refused before the login, which would be read on the way."""
    trace = tmp_path / "trace"
    settings = f'authorization {{ user: ann, password: p }}\ntrace: true\nlog_file: "{trace}"\n'
    server = configured(servers, stack, settings)
    line = refusal_at(f"natss://ann:p@127.0.0.1:{server.port}")
    assert "does not offer TLS" in line
    assert "CONNECT" not in trace.read_text()
