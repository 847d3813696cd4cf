"""NATS with settings of a test: accounts, TLS, limits, and clusters."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nats

from scripts.broker_servers.kinds import KINDS, Nats
from scripts.broker_servers.system import free_ports, listens
from tests.brokers.servers import Servers

CLUSTER_SECONDS = 60.0  # for three servers to find each other and a leader


class ConfiguredNats(Nats):
    """One server: `settings` are added to its file. Its third port is for a cluster."""

    port_count = 3

    def __init__(self, directory: Path, ports: Sequence[int], *, settings: str, options: Sequence[str] = ()) -> None:
        super().__init__(directory, ports)
        self.settings = settings
        self._options = options

    def command(self) -> list[str]:
        """Add the settings; options that are named go."""
        command = super().command()
        with (self.directory / "nats.conf").open("a") as file:
            file.write(self.settings)
        return [each for each in command if each not in self._options]


class ConfiguredNewest(ConfiguredNats):
    """The same, of the later version."""

    @classmethod
    def require(cls) -> str:
        """Return the path of nats-server."""
        return KINDS["nats-newest"].require()


CONFIGURED = {"nats": ConfiguredNats, "nats-newest": ConfiguredNewest}


def configured(
    servers: Servers, stack: ExitStack, settings: str, *, kind: str = "nats", jetstream: bool = True
) -> Nats:
    """Start a server with these settings added, which the stack ends."""
    options = () if jetstream else ("-js",)
    server = servers.own(kind, stack, CONFIGURED[kind], settings=settings, options=options)
    assert isinstance(server, Nats)
    return server


def tls_block(cert: Path, key: Path, ca: Path | None = None) -> str:
    """Return the settings of TLS; with an authority, clients need a certificate of its."""
    verify = "" if ca is None else f', ca_file: "{ca}", verify: true'
    return f'tls {{ cert_file: "{cert}", key_file: "{key}"{verify} }}\n'


class Cluster:
    """Three servers with JetStream, on free ports."""

    def __init__(self, servers: Servers, stack: ExitStack, kind: str) -> None:
        routes = free_ports(3)
        where = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        self.members: list[Nats] = []
        for number, port in enumerate(routes):
            settings = (
                f"server_name: n{number}\n"
                f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{where}], no_advertise: true }}\n"
            )
            self.members.append(servers.own(kind, stack, _member(CONFIGURED[kind]), settings=settings))  # type: ignore[arg-type]
        end = time.monotonic() + CLUSTER_SECONDS
        while not all(Nats.ready(member) for member in self.members):
            assert time.monotonic() < end, self.members[0].tail()
            time.sleep(0.05)

    def named(self, name: str) -> Nats:
        """Return a member by its name in the cluster."""
        return self.members[int(name.removeprefix("n"))]

    @property
    def url(self) -> str:
        """The URL of all of them."""
        return "nats://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)


def _member(kind: type[ConfiguredNats]) -> type[ConfiguredNats]:
    class Member(kind):  # type: ignore[misc,valid-type]
        """Up once it listens: JetStream waits for the others."""

        def ready(self) -> bool:
            """Return whether it listens."""
            return listens(self.port)

    return Member


async def ask(port: int, subject: str, question: Any = None) -> dict[str, Any]:
    """Ask JetStream's API with the bare library."""
    client = await nats.connect(f"nats://127.0.0.1:{port}")
    try:
        answer = await client.request(
            f"$JS.API.{subject}", b"" if question is None else json.dumps(question).encode(), 10
        )
        found: dict[str, Any] = json.loads(answer.data)
        assert "error" not in found, found
        return found
    finally:
        await client.close()
