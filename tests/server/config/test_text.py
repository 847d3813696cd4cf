"""The settings as text: the example file, and what holds."""

from __future__ import annotations

import re
import tomllib

from oncecast.server import config
from oncecast.server.config.setting import RULE
from oncecast.server.settings import (
    DEFAULT_BROKER,
    SECRETS,
    AuthSettings,
    ChannelRule,
    Limits,
    RetentionSettings,
    Settings,
)
from tests.server.config.conftest import load


def test_example_file_is_the_defaults() -> None:
    """The example sets nothing as it stands, and the defaults once every setting is uncommented."""
    example = config.example_file()
    assert Settings(broker=DEFAULT_BROKER) == load(example).settings
    settings = load(re.sub(r"(?m)^#(?! )", "", example)).settings
    rule = ChannelRule(
        subscribe="public",
        publish="token",
        message_bytes=65536,
        publishes_per_second=100.0,
        bytes_per_second=1048576.0,
        user_publishes_per_second=5.0,
        user_bytes_per_second=65536.0,
        messages=10_000,
        seconds=3600.0,
        lag="resume",
    )
    auth = AuthSettings(
        secret_file="/etc/oncecast.secret",
        public_key_file="issuer.pem",
        jwks_url="https://login.example.com/.well-known/jwks.json",
        issuer="https://login.example.com/",
        cookie="session",
    )
    expected = Settings(
        app="shop.main:app",
        broker=DEFAULT_BROKER,
        tls_cert=("cert.pem",),
        tls_key=("key.pem",),
        tls_key_password_file="/run/secrets/tls-passphrase",
        tls_client_ca="clients-ca.pem",
        auth=auth,
        channels={"ticker.*": rule},
    )
    assert expected == settings


def test_example_file_explains_every_key() -> None:
    """Each setting in the example stands below a line that explains it."""
    lines = config.example_file().splitlines()
    settings = [n for n, line in enumerate(lines) if re.match("#[a-z_]+ = ", line)]
    assert len(load().sources) + len(RULE) - len(SECRETS) == len(settings)
    assert [] == [lines[n] for n in settings if not re.fullmatch(r"# [A-Z].+\.", lines[n - 1])]


def test_to_toml_round_trip() -> None:
    """Settings that are written as TOML read back as the same settings."""
    settings = Settings(
        host="::1",
        origins=("https://a.example",),
        tls_cert=('we"ird\\\x7f\x01é.pem',),
        tls_key=("k",),
        limits=Limits(wait_seconds=0.5),
        retention=RetentionSettings(messages=5),
        channels={"a.*": ChannelRule(seconds=1.5), "b": ChannelRule(lag="latest")},
    )
    text = config.to_toml(settings)
    assert settings == load(text).settings
    assert {"limits", "retention", "channels"} <= set(tomllib.loads(text))


def test_secrets_are_not_written() -> None:
    """A secret that a variable gives is named, and not shown."""
    loaded = load(environ={"ONCECAST_AUTH__SECRET": "s" * 32})
    assert "s" * 32 == loaded.settings.auth.secret
    for text in (config.to_toml(loaded.settings, loaded.sources), config.to_toml(loaded.settings)):
        assert "# secret is set, and not shown" in text.splitlines()
        assert "ssss" not in text


def test_a_password_of_a_broker_is_not_shown() -> None:
    """A broker's password is replaced by stars in text for people, and kept in text that is read again."""
    loaded = load(environ={"ONCECAST_BROKER": "redis://me:hidden@h:6379/0"})
    shown = config.to_toml(loaded.settings, loaded.sources).splitlines()
    assert 'broker = "redis://***@h:6379/0"  # ONCECAST_BROKER' in shown
    assert "me:hidden" in config.to_toml(loaded.settings)
