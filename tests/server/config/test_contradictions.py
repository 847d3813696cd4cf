"""Settings that can't hold together: each pair is refused with both names."""

from __future__ import annotations

import pytest

from oncecast.server.brokers import BUILDERS
from oncecast.server.config.contradictions import OPEN_CURE
from tests.server.config.conftest import load, mistake

BROKERS = "use one of " + ", ".join(f"{name}://" for name in BUILDERS) + ", as in sqlite:///oncecast.db"


@pytest.mark.parametrize(
    "toml, environ, flags, expected",
    [
        (
            'tls_cert = "c"',
            {},
            {},
            "oncecast.toml: tls_cert: TLS needs tls_cert and tls_key, and tls_key is not set: set both or neither",
        ),
        (
            "",
            {"ONCECAST_TLS_KEY": "k"},
            {},
            "ONCECAST_TLS_KEY: TLS needs tls_cert and tls_key, and tls_cert is not set: set both or neither",
        ),
        (
            'tls_cert = ["a", "b"]',
            {"ONCECAST_TLS_KEY": "k"},
            {},
            "ONCECAST_TLS_KEY: there are 2 in tls_cert and 1 here: give a key for each, in its order",
        ),
        (
            "tls = true",
            {},
            {},
            "oncecast.toml: tls: the certificate that the server makes is for development: give --dev, or tls_cert and"
            " tls_key",
        ),
        (
            "",
            {"ONCECAST_TLS_CLIENT_CA": "ca.pem"},
            {},
            "ONCECAST_TLS_CLIENT_CA: only TLS has certificates of clients: set tls_cert and tls_key too",
        ),
        (
            "",
            {},
            {"broker": "sqlite://app.db"},
            "--broker: the path of a file begins after three slashes, as in sqlite:///app.db, or four for"
            " /var/lib/app.db",
        ),
        (
            "",
            {},
            {"host": "0.0.0.0"},
            "--host: binding to all interfaces lets anyone publish who can reach it, as there are no access rules: "
            + OPEN_CURE,
        ),
        (
            "host = '10.0.0.7'",
            {},
            {},
            "oncecast.toml: host: binding to 10.0.0.7 lets anyone publish who can reach it, as there are no access"
            " rules: " + OPEN_CURE,
        ),
        (
            "",
            {},
            {"broker": "ftp://:secret@h"},
            "--broker: not a broker's URL: " + BROKERS,
        ),
        ("", {}, {"broker": "memory"}, "--broker: not a broker's URL: memory is one with its slashes, memory://"),
        ("", {}, {"broker": "nats://"}, "--broker: there is no host in nats://: name one, as in nats://127.0.0.1"),
        ("", {}, {"broker": "redis"}, "--broker: not a broker's URL: redis is one with its slashes, redis://…"),
        (
            "broker = 'mysql://:secret@h'",
            {},
            {},
            "oncecast.toml: broker: not a broker's URL: " + BROKERS,
        ),
        (
            "workers = 4\ndev = true",
            {},
            {},
            "oncecast.toml: workers: 4 processes can't share the broker memory://; use broker = sqlite:///oncecast.db,"
            " or workers = 1",
        ),
        (
            "dev = true",
            {"ONCECAST_DURABILITY": "fsync"},
            {},
            "ONCECAST_DURABILITY: fsync is for a broker's file, and the broker is memory://; use broker ="
            ' sqlite:///oncecast.db, or durability = "process"',
        ),
        (
            'durability = "fsync"',
            {},
            {"broker": "redis://:secret@h"},
            "oncecast.toml: durability: fsync is for a broker's file, and the broker is redis://; use broker ="
            ' sqlite:///oncecast.db, or durability = "process"',
        ),
        (
            "dev = true\n[retention]\nbytes = 65536",
            {},
            {},
            "oncecast.toml: retention.bytes: limits.message_bytes = 1048576 is above retention.bytes = 65536, but the"
            " log in memory must hold a message: lower limits.message_bytes or raise retention.bytes",
        ),
        (
            "",
            {"ONCECAST_LIMITS__URL_BYTES": "65536"},
            {},
            "ONCECAST_LIMITS__URL_BYTES: limits.url_bytes = 65536 is above limits.header_bytes = 32768, but a head has"
            " its URL: lower limits.url_bytes or raise limits.header_bytes",
        ),
        (
            "[limits]\nbody_bytes = 1000",
            {},
            {},
            "oncecast.toml: limits.body_bytes: limits.body_bytes = 1000 is below limits.message_bytes = 1048576, so a"
            " message that a WebSocket takes could not be posted: raise limits.body_bytes, leave it out, or lower"
            " limits.message_bytes",
        ),
        (
            "[limits]\nurl_bytes = 8192",
            {},
            {},
            "oncecast.toml: limits.url_bytes: limits.url_bytes = 8192 is too little for a poll's URL with"
            " limits.channels_per_subscription = 64 and the longest names: raise limits.url_bytes to 8768 or more,"
            " or lower limits.channels_per_subscription",
        ),
        (
            "[limits]\nchannels_per_subscription = 500",
            {},
            {},
            "oncecast.toml: limits.channels_per_subscription: limits.url_bytes = 16384 is too little for a"
            " poll's URL with limits.channels_per_subscription = 500 and the longest names: raise limits.url_bytes to"
            " 65012 or more, or lower limits.channels_per_subscription",
        ),
        (
            "[auth]\nsecret_file = 's'",
            {"ONCECAST_AUTH__SECRET": "s" * 32},
            {},
            "ONCECAST_AUTH__SECRET: auth.secret and auth.secret_file are both set: give the secret in one place",
        ),
        (
            "[auth]\ncookie = 'sid'",
            {},
            {},
            "oncecast.toml: auth.cookie: auth.cookie is set, and no key to verify tokens with: set secret_file,"
            " public_key_file or jwks_url",
        ),
        (
            "[auth]\ncookie = 's;d'\nsecret_file = 's'",
            {},
            {},
            "oncecast.toml: auth.cookie: auth.cookie is not the name of a cookie: use letters, digits, - and _",
        ),
        (
            "[auth]\nserver_keys = ['x']",
            {},
            {},
            "server_keys has an entry that is not NAME:sha256:HEX: `oncecast key create` prints a line",
        ),
    ],
)
def test_contradictions(toml: str, environ: dict[str, str], flags: dict[str, object], expected: str) -> None:
    """Settings that can't hold together are refused with the source and the cure, and without a broker's password."""
    assert expected == mistake(toml, environ, flags)


@pytest.mark.parametrize(
    "flags",
    [
        {"host": "0.0.0.0", "public": True},
        {"host": "0.0.0.0", "dev": True},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "127.8.8.8"},
        {"tls_cert": ("c",), "tls_key": ("k",)},
        {"broker": "sqlite:///a.db"},
    ],
)
def test_what_does_not_contradict(flags: dict[str, object]) -> None:
    """Open publishing is accepted where it is asked for outright, or only this machine reaches the port."""
    toml = None if flags.get("dev") else "[retention]\nbytes = 65536"  # a file keeps longer messages
    assert flags == {key: getattr(load(toml, flags=flags).settings, key) for key in flags}


def test_access_rules_open_an_address_to_other_machines() -> None:
    """Who may publish is said then. A table that says nothing of it opens nothing."""
    rules = """[channels."chat.*"]\nsubscribe = "public"\n"""
    assert "public" == load(rules, flags={"host": "0.0.0.0"}).settings.channels["chat.*"].subscribe
    assert OPEN_CURE in mistake("""[channels."chat.*"]\nmessages = 3\n""", {}, {"host": "0.0.0.0"})


def test_a_client_certificate_that_nobody_asks_for_is_a_warning() -> None:
    """Who writes `required` thinks that the port is closed to others, and without a CA it is open."""
    tls = "tls_cert = 'c'\ntls_key = 'k'\n"
    text = "has no effect, as no client is asked for a certificate: name the CAs in tls_client_ca"
    assert (f"oncecast.toml: tls_client: {text}",) == load(tls + "tls_client = 'required'").warnings
    assert (f"ONCECAST_TLS_CLIENT: {text}",) == load(tls, {"ONCECAST_TLS_CLIENT": "optional"}).warnings
    assert () == load(tls).warnings
    assert () == load(tls + "tls_client = 'required'\ntls_client_ca = 'ca'").warnings
