"""TLS and passwords of Kafka and RabbitMQ, against real servers."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import Kafka, RabbitMQ
from scripts.broker_servers.system import listens
from tests.brokers.certificates import Authority, Pair
from tests.brokers.servers import Servers
from tests.brokers.starting import publish_once, refusal_at


class Certified(BrokerServer):
    """A server with a certificate, and the authority of its clients."""

    def __init__(self, directory: Path, ports: Sequence[int], *, pair: Pair, ca: Path) -> None:
        super().__init__(directory, ports)
        self.pair = pair
        self.ca = ca


class SecureKafka(Certified, Kafka):
    """Kafka with a listener for TLS and passwords, on the third port."""

    port_count = 3

    def ready(self) -> bool:
        """Return whether TLS is served too."""
        return super().ready() and listens(self.ports[2])

    def command(self) -> list[str]:
        """Add the listener to the settings."""
        command = super().command()
        settings = self.directory / "server.properties"
        secure = f",SECURE://127.0.0.1:{self.ports[2]}\n"
        lines = [
            f"{line}{secure}" if line.startswith(("listeners=", "advertised.listeners=")) else f"{line}\n"
            for line in settings.read_text().splitlines()
        ]
        login = "org.apache.kafka.common.security.plain.PlainLoginModule"
        lines += [
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL\n",
            "listener.name.secure.sasl.enabled.mechanisms=PLAIN\n",
            f'listener.name.secure.plain.sasl.jaas.config={login} required user_ann="p@ss";\n',
            "listener.name.secure.ssl.keystore.type=PEM\n",
            f"listener.name.secure.ssl.keystore.location={self.pair.both}\n",
            "listener.name.secure.ssl.truststore.type=PEM\n",
            f"listener.name.secure.ssl.truststore.location={self.ca}\n",
            "listener.name.secure.ssl.client.auth=required\n",
        ]
        settings.write_text("".join(lines))
        return command


class SecureRabbitMQ(Certified, RabbitMQ):
    """RabbitMQ with a listener of streams over TLS, on the fifth port."""

    port_count = 5

    def ready(self) -> bool:
        """Return whether TLS is served too."""
        return super().ready() and listens(self.ports[4])

    def command(self) -> list[str]:
        """Add the listener to the configuration."""
        command = super().command()
        with (self.directory / "rabbitmq.conf").open("a") as settings:
            settings.write(
                f"stream.listeners.ssl.1 = 127.0.0.1:{self.ports[4]}\n"
                f"stream.advertised_tls_port = {self.ports[4]}\n"
                f"ssl_options.cacertfile = {self.ca}\n"
                f"ssl_options.certfile = {self.pair.cert}\n"
                f"ssl_options.keyfile = {self.pair.key}\n"
                "ssl_options.verify = verify_peer\n"
                "ssl_options.fail_if_no_peer_cert = true\n"
            )
        return command


SECURE: dict[str, tuple[type[Certified], str, int]] = {
    "kafka": (SecureKafka, "kafka+ssl://ann:p%40ss@127.0.0.1:{port}?topic=secure", 2),
    "rabbitmq": (SecureRabbitMQ, "amqps://guest:guest@127.0.0.1:{port}/?stream=secure", 4),
}


class Site(NamedTuple):
    """A server with TLS that asks its clients for a certificate: its URL, and the files."""

    url: str
    folder: Path
    authority: Authority
    ours: Pair

    def trusting(self, ca: Path) -> str:
        """Return the URL with an authority, and no certificate of ours."""
        return f"{self.url}&tls_ca={ca}"

    def whole(self, *, url: str | None = None, trust: str | None = None) -> str:
        """Return the URL with all that it takes."""
        trust = f"tls_ca={self.authority.ca}" if trust is None else trust
        return f"{url or self.url}&{trust}&tls_cert={self.ours.cert}&tls_key={self.ours.key}"


@pytest.fixture(scope="module", params=SECURE)
def site(request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server of each kind."""
    kind, url, port = SECURE[request.param]
    folder = tmp_path_factory.mktemp(f"secure-{request.param}")
    authority = Authority(folder, "authority")
    pair = authority.issue("server", "127.0.0.1")
    with ExitStack() as stack:
        server = servers.own(request.param, stack, kind, pair=pair, ca=authority.ca)
        yield Site(url.format(port=server.ports[port]), folder, authority, authority.issue("client"))


def test_a_certificate_that_is_trusted(site: Site) -> None:
    """With the authority's certificate, everything works over TLS; so it does where none is to be checked."""
    assert publish_once(site.whole()) == b"1"
    assert publish_once(site.whole(trust="tls_verify=no")) == b"1"


def test_a_certificate_that_is_not_trusted(site: Site) -> None:
    """Without the authority, with another, or for another host the start fails with a line that says what to do."""
    other = Authority(site.folder, "other")
    for trust in ("tls_verify=yes", f"tls_ca={other.ca}"):
        assert "name the authority's file by ?tls_ca=FILE" in refusal_at(site.whole(trust=trust))
    line = refusal_at(site.whole(url=site.url.replace("127.0.0.1", "localhost")))
    assert "write the host as the certificate has it" in line


def test_a_certificate_that_the_server_asks_for(site: Site) -> None:
    """Without one the line names the options."""
    assert "?tls_cert=FILE&tls_key=FILE" in refusal_at(site.trusting(site.authority.ca))


def test_a_password_from_a_file(site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The password may stand in a file or a variable; a wrong one is a line that shows none of it."""
    caplog.set_level(logging.DEBUG)
    secret = re.search(r"://(\w+):([^@]+)@", site.url)
    assert secret is not None
    bare = site.whole(url=site.url.replace(f":{secret[2]}@", "@"))
    password = site.folder / "password"
    password.write_text(secret[2].replace("%40", "@") + "\n")
    assert publish_once(f"{bare}&password_file={password}") == b"1"
    monkeypatch.setenv("SECRET", "wrong-one")
    line = refusal_at(f"{bare}&password_env=SECRET")
    assert "check its user" in line
    assert "wrong-one" not in line + caplog.text


def test_a_server_with_tls_is_distinguished_from_one_without(site: Site) -> None:
    """A URL without TLS at its port ends in a line, within the deadline of a connection."""
    begun = time.monotonic()
    refusal_at(site.url.replace("amqps:", "amqp:").replace("kafka+ssl:", "kafka:"))
    assert time.monotonic() - begun < 30
