"""TLS to Redis: an authority of our own, certificates of other authorities and hosts, and of clients."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scripts.broker_servers.kinds import Redis
from tests.brokers.certificates import Authority
from tests.brokers.redis.sites import Sentinel, Sites, works
from tests.brokers.starting import refusal_at


class SecureRedis(Redis):
    """A server with a port for TLS beside the plain one; with `clients`, it asks for their certificates too."""

    port_count = 2
    authority: Authority
    clients = False
    hosts = ("127.0.0.1", "localhost")

    def command(self) -> list[str]:
        """Add the port."""
        return [*super().command(), *self.secure()]

    def secure(self) -> list[str]:
        """Return the settings of TLS."""
        pair = self.authority.issue(f"server-{self.port}", *self.hosts)
        return [
            *("--tls-port", str(self.ports[1]), "--tls-cert-file", str(pair.cert), "--tls-key-file", str(pair.key)),
            *("--tls-ca-cert-file", str(self.authority.ca)),
            *("--tls-auth-clients", "yes" if self.clients else "no"),
        ]


class SecureSentinel(SecureRedis, Sentinel):
    """A sentinel that listens with TLS alone."""

    def command(self) -> list[str]:
        """Add TLS; a sentinel gives its TLS port as its own."""
        command = Sentinel.command(self)
        return [*command, *self.secure()]


@dataclasses.dataclass
class Secure:
    """A server for any client that trusts `authority`, and one that requires certificates."""

    sites: Sites
    authority: Authority
    port: int
    strict: int
    plain: int
    ca: str


@pytest.fixture(scope="module")
def secure(shared: Sites) -> Secure:
    """The servers."""
    authority = Authority(shared.folder, "ours")
    ports = []
    for clients in (False, True):
        server = shared.make(SecureRedis)
        server.authority, server.clients = authority, clients
        server.start()
        ports.append(server)
    one, strict = ports
    return Secure(shared, authority, one.ports[1], strict.ports[1], one.port, str(authority.ca))


def test_a_certificate_that_is_trusted(secure: Secure) -> None:
    """By the address or a name that it has; also by none at all where no certificate is to be checked."""
    for host in ("127.0.0.1", "localhost"):
        works(secure.sites.started(f"rediss://{host}:{secure.port}?tls_ca={secure.ca}", "a"))
    works(secure.sites.started(f"rediss://127.0.0.1:{secure.port}?tls_verify=no", "a"))


def test_a_certificate_of_another_authority(secure: Secure, tmp_path: Path) -> None:
    """One that is not known to this machine, or not the one that is named."""
    other = Authority(tmp_path, "other")
    for trusted in ("", f"?tls_ca={other.ca}"):
        text = refusal_at(f"rediss://127.0.0.1:{secure.port}{trusted}")
        assert "its certificate: " in text
        assert "name the authority's file by ?tls_ca=FILE" in text


def test_a_certificate_of_another_host(secure: Secure) -> None:
    """The address leads to the server, and its certificate does not name it."""
    text = refusal_at(f"rediss://127.0.0.2:{secure.port}?tls_ca={secure.ca}")
    assert "refuses connections" in text  # nothing listens there: what follows does
    server = secure.sites.make(SecureRedis)
    server.authority, server.hosts = secure.authority, ("redis.example",)
    server.start()
    text = refusal_at(f"rediss://127.0.0.1:{server.ports[1]}?tls_ca={secure.ca}")
    assert "its certificate: " in text
    assert "write the host as the certificate has it" in text


def test_a_certificate_of_the_client(secure: Secure, tmp_path: Path) -> None:
    """A server that asks for one gets the one of the URL; without, or with a foreign one, the start fails."""
    url = f"rediss://127.0.0.1:{secure.strict}?tls_ca={secure.ca}"
    ours, foreign = secure.authority.issue("client"), Authority(tmp_path, "other").issue("client")
    works(secure.sites.started(f"{url}&tls_cert={ours.cert}&tls_key={ours.key}", "a"))
    for given in ("", f"&tls_cert={foreign.cert}&tls_key={foreign.key}"):
        text = refusal_at(url + given)
        assert "give tls_cert=FILE and tls_key=FILE, if it asks for a client's certificate it trusts" in text


def test_files_that_are_no_certificates(secure: Secure, tmp_path: Path) -> None:
    """A file that is missing, or has something else."""
    (tmp_path / "text").write_text("no certificate")
    for name in ("missing", "text"):
        text = refusal_at(f"rediss://127.0.0.1:{secure.port}?tls_ca={tmp_path / name}")
        assert "a TLS file of" in text


def test_a_plain_url_at_a_port_with_tls(secure: Secure) -> None:
    """The line names the scheme that is needed."""
    assert "begin the URL with rediss://" in refusal_at(f"redis://127.0.0.1:{secure.port}")


def test_sentinel_with_tls(secure: Secure) -> None:
    """Sentinel is asked with TLS too, unless the URL says that it has none; the primary has it in both cases."""
    for kind, more in ((SecureSentinel, ""), (Sentinel, "&sentinel_tls=no")):
        sentinel = secure.sites.make(kind)
        sentinel.primary, sentinel.authority = secure.port, secure.authority
        sentinel.start()
        port = sentinel.ports[1] if kind is SecureSentinel else sentinel.port
        url = f"rediss+sentinel://127.0.0.1:{port}/mymaster/0?tls_ca={secure.ca}{more}"
        node = secure.sites.started(url, "a")
        works(node)
