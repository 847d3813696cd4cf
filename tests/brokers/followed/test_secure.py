"""TLS and passwords of Kafka and RabbitMQ, against real servers."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncecast.errors import ConfigurationError
from oncecast.message import Draft, Retention
from oncecast.server.brokers import build_broker
from oncecast.server.settings import Settings
from oncecast.testing.broker_bench import BrokerBench, Lab
from oncecast.testing.driver import LoopDriver
from scripts.broker_servers.base import BrokerServer
from scripts.broker_servers.kinds import Kafka, RabbitMQ
from scripts.broker_servers.system import free_ports, listens
from tests.brokers.servers import Servers


class SecureKafka(Kafka):
    """Kafka with a listener for TLS and passwords, on the third port."""

    port_count = 3

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
            f"listener.name.secure.ssl.keystore.location={self.directory / 'keystore.pem'}\n",
        ]
        settings.write_text("".join(lines))
        return command


class SecureRabbitMQ(RabbitMQ):
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
                f"ssl_options.cacertfile = {self.directory / 'cert.pem'}\n"
                f"ssl_options.certfile = {self.directory / 'cert.pem'}\n"
                f"ssl_options.keyfile = {self.directory / 'key.pem'}\n"
            )
        return command


SECURE: dict[str, tuple[type[BrokerServer], str, int]] = {
    "kafka": (SecureKafka, "kafka+ssl://ann:p%40ss@127.0.0.1:{port}?topic=secure", 2),
    "rabbitmq": (SecureRabbitMQ, "amqps://guest:guest@127.0.0.1:{port}/?stream=secure", 4),
}


@pytest.fixture(scope="module", params=SECURE)
def site(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The URL of a server with TLS, without what says whom to trust, and the folder of its certificate."""
    servers(request.param)  # skips where its program is missing
    kind, url, port = SECURE[request.param]
    folder = tmp_path_factory.mktemp(f"secure-{request.param}")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (folder / "keystore.pem").write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    server = kind(folder, free_ports(kind.port_count))
    try:
        server.start()
        yield url.format(port=server.ports[port]), folder
    finally:
        server.kill()


def once(url: str) -> list[bytes]:
    """Start a node, publish, read it back, and stop."""
    driver = LoopDriver()
    broker = build_broker(Settings(broker=url), lambda channel: Retention())
    bench = BrokerBench(broker, Lab(lambda: broker, driver))
    try:
        bench.start()
        bench.want("a")
        bench.receipts(Draft("a", b"1"))
        page = bench.page("a", bench.after(0))
        assert page is not None
        return [message.data for message in page.messages[-1:]]
    finally:
        bench.stop()
        driver.close()


def test_a_certificate_that_is_trusted(site: tuple[str, Path]) -> None:
    """With the authority's certificate, everything works over TLS; so it does where none is to be checked."""
    url, folder = site
    assert once(f"{url}&tls_ca={folder / 'cert.pem'}") == [b"1"]
    assert once(f"{url}&tls_verify=no") == [b"1"]


def test_a_certificate_that_is_not_trusted(site: tuple[str, Path]) -> None:
    """Without it the start fails with a line that names the certificate."""
    url, _ = site
    with pytest.raises(ConfigurationError, match=r"(?i)certificate"):
        once(url)


def test_a_password_from_a_file(site: tuple[str, Path]) -> None:
    """The password may stand in a file; a wrong one is a line that shows none of it."""
    url, folder = site
    secret = re.search(r"://(\w+):([^@]+)@", url)
    assert secret is not None
    bare = url.replace(f":{secret[2]}@", "@") + "&tls_verify=no"
    (folder / "password").write_text(secret[2].replace("%40", "@") + "\n")
    assert once(f"{bare}&password_file={folder / 'password'}") == [b"1"]
    (folder / "password").write_text("wrong-one\n")
    with pytest.raises(ConfigurationError, match="check its user") as raised:
        once(f"{bare}&password_file={folder / 'password'}")
    assert "wrong-one" not in str(raised.value)
