"""Each fault by its name: real proxies that are set wrongly, and servers that are, in front of what is sound otherwise.

A fault is the file of `deploy/proxies` with a line changed or added, or a default of `tests/proxies/programs.py`. An
examination finds exactly that fault.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from email.utils import formatdate
from pathlib import Path
from random import Random

import jwt
import pytest

from oncecast.client.dialing import Endpoint
from oncecast.client.failures import Unreachable
from oncecast.client.url import ServerUrl
from oncecast.doctor.examination import Diagnosis, Orders, examine
from oncecast.doctor.findings import CHECKS, Judgement
from oncecast.doctor.probes import Examinee
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from oncecast.testing.pipe import FaultyPipe, Plan
from scripts.broker_servers.system import free_ports
from tests.brokers.certificates import Authority, Pair
from tests.proxies.programs import PROGRAMS, Site, replaced, running, site_of

PAGE = "https://page.example"
SECRET = "a secret of at least thirty-two bytes"
QUIET = 2.5  # seconds; a timeout of 1 s is shorter, and a heartbeat of 15 s longer

Changed = Callable[[str], str]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The proxies' certificate."""
    return Authority(tmp_path_factory.mktemp("certificates"), "authority").issue("localhost", "localhost", "127.0.0.1")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A sound server, of which pages of `PAGE` may ask."""
    server = Server(Settings(port=0, origins=(PAGE,)))
    await server.start()
    yield server
    await server.stop(0)


def swapped(old: str, new: str) -> Changed:
    """Return what replaces a text of the file."""
    return lambda text: replaced(text, {old: new})


def added(before: str, line: str) -> Changed:
    """Return what adds a line before a text of the file."""
    return lambda text: replaced(text, {before: f"{line}\n{before}"})


NGINX, HAPROXY, CADDY, HTTPD = (
    "    location / {",
    "    option httpchk\n",
    "\t\tlb_try_duration",
    "    ProxyPreserveHost On\n",
)
INTERNAL = "https://internal.example"
LATER = formatdate(time.time() + 3600, usegmt=True)
OLD = swapped("proxy_http_version 1.1;", "proxy_ignore_headers X-Accel-Buffering;")  # so it is 1.0, without chunks
# The proxy, what is found, and the change of its file that is to blame.
FAULTS: Mapping[str, tuple[str, str, Changed]] = {
    "nginx buffers": ("nginx", "buffering http-version upgrade", OLD),
    "nginx compresses": (
        "nginx",
        "compression",
        added(NGINX, "gzip on; gzip_min_length 1; gzip_types text/event-stream;"),
    ),
    "nginx strips": ("nginx", "upgrade", swapped("Upgrade $http_upgrade", 'Upgrade ""')),
    "nginx renames": ("nginx", "host", swapped("Host $http_host", "Host internal.example")),
    "nginx cuts": ("nginx", "quiet", added(NGINX, "proxy_read_timeout 1s;")),
    "nginx hides": ("nginx", "cors", added(NGINX, "proxy_hide_header Access-Control-Allow-Origin;")),
    "nginx doubles": ("nginx", "cors", added(NGINX, "add_header Access-Control-Allow-Origin * always;")),
    "nginx forwards elsewhere": ("nginx", "server", swapped("http://oncecast;", "http://oncecast/elsewhere/;")),
    "haproxy delays": ("haproxy", "buffering", swapped("    option http-no-delay", "    #")),
    "haproxy strips": ("haproxy", "upgrade", added(HAPROXY, "    http-request del-header Upgrade")),
    "haproxy renames": ("haproxy", "host", added(HAPROXY, "    http-request set-header Host internal.example")),
    "haproxy cuts": ("haproxy", "quiet", swapped("timeout server  50s", "timeout server 1s")),
    "haproxy hides": ("haproxy", "cors", added(HAPROXY, "    http-response del-header Access-Control-Allow-Origin")),
    "haproxy is an hour ahead": ("haproxy", "clock", added(HAPROXY, f'    http-response set-header Date "{LATER}"')),
    "caddy strips": ("caddy", "upgrade", added(CADDY, "\t\theader_up -Upgrade")),
    "caddy renames": ("caddy", "host", added(CADDY, "\t\theader_up Host internal.example")),
    "caddy cuts": ("caddy", "quiet", added(CADDY, "\t\ttransport http {\n\t\t\tread_timeout 1s\n\t\t}")),
    "caddy hides": ("caddy", "cors", added(CADDY, "\t\theader_down -Access-Control-Allow-Origin")),
    "httpd compresses": (
        "httpd",
        "compression",
        added(HTTPD, "    AddOutputFilterByType DEFLATE text/event-stream"),
    ),
    "httpd strips": ("httpd", "upgrade", swapped("upgrade=websocket", "")),
    "httpd renames": ("httpd", "host", swapped(HTTPD, "")),
    "httpd cuts": ("httpd", "quiet", added(HTTPD, "    ProxyTimeout 1")),
    "httpd speaks HTTP/1.0": ("httpd", "http-version upgrade", added(HTTPD, "    SetEnv force-proxy-request-1.0 1")),
    "nginx rewrites the origin": ("nginx", "origin", added(NGINX, f"proxy_set_header Origin {INTERNAL};")),
    "haproxy rewrites the origin": (
        "haproxy",
        "origin",
        added(HAPROXY, f"    http-request set-header Origin {INTERNAL}"),
    ),
    "caddy rewrites the origin": ("caddy", "origin", added(CADDY, f"\t\theader_up Origin {INTERNAL}")),
    "httpd rewrites the origin": ("httpd", "origin", added(HTTPD, f"    RequestHeader set Origin {INTERNAL}")),
    "httpd hides": ("httpd", "cors", added(HTTPD, "    Header unset Access-Control-Allow-Origin")),
}


async def examined(
    port: int, *, quiet: float = 0, origin: str | None = PAGE, token: str | None = None, proxy: str | None = None
) -> Diagnosis:
    """Examine what is behind a port."""
    headers = () if token is None else (("Authorization", f"Bearer {token}"),)
    examinee = Examinee(Endpoint(ServerUrl.parse(f"http://127.0.0.1:{port}"), headers), "doctor", spread=0.1)
    return await examine(examinee, Orders(origin, True, quiet, proxy, token is not None))


def names(diagnosis: Diagnosis) -> set[str]:
    """Return the checks that have found something."""
    return {finding.check for finding in diagnosis.wrong}


def site_for(name: str, ports: list[int], folder: Path, pair: Pair) -> Site:
    """Return where a proxy stands."""
    return site_of(folder / name, ports, pair)


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_found_by_name(fault: str, server: Server, tmp_path: Path, pair: Pair) -> None:
    """It is found, it alone, and its cure is in the proxy's words."""
    name, found, change = FAULTS[fault]
    program = PROGRAMS[name]
    site = site_for(name, [server.port] * 3, tmp_path, pair)
    with running(program, change(program.fitted(site)), site):
        diagnosis = await examined(site.plain, quiet=QUIET if found == "quiet" else 0, proxy=name)
    assert set(found.split()) == names(diagnosis), diagnosis.findings
    assert all(finding.cure for finding in diagnosis.wrong)
    assert set(CHECKS) == {finding.check for finding in diagnosis.findings}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_nothing_is_found_behind_our_file(name: str, server: Server, tmp_path: Path, pair: Pair) -> None:
    """A sound server behind a sound proxy has no finding, and the proxy is recognized where it says its name."""
    program = PROGRAMS[name]
    site = site_for(name, [server.port] * 3, tmp_path, pair)
    with running(program, program.fitted(site), site):
        diagnosis = await examined(site.plain, quiet=1.2)
    assert set() == names(diagnosis), diagnosis.findings
    assert (None if name == "haproxy" else name) == diagnosis.proxy


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("nginx", {"host", "http-version", "upgrade"}),
        ("haproxy", {"buffering"}),
        ("caddy", set()),
        ("httpd", {"host", "upgrade"}),
    ],
)
async def test_what_the_defaults_break_is_found(
    name: str, found: set[str], server: Server, tmp_path: Path, pair: Pair
) -> None:
    """Each default has the findings that the page about proxies has for it."""
    program = PROGRAMS[name]
    site = site_for(name, [server.port] * 3, tmp_path, pair)
    with running(program, program.default(site), site):
        assert found == names(await examined(site.plain, origin=None))


async def test_http_1_0_with_an_upgrade_is_found(server: Server, tmp_path: Path, pair: Pair) -> None:
    """Where all else is as it has to be, nginx's own version of HTTP is found."""
    program = PROGRAMS["nginx"]
    site = site_for("nginx", [server.port] * 3, tmp_path, pair)
    with running(program, replaced(program.fitted(site), {"proxy_http_version 1.1;": ""}), site):
        assert {"http-version", "upgrade"} == names(await examined(site.plain))


async def test_nodes_without_a_common_log_are_found(tmp_path: Path, pair: Pair) -> None:
    """Three nodes in memory behind one proxy are three logs."""
    async with AsyncExitStack() as stack:
        servers = [Server(Settings(port=0, origins=(PAGE,))) for _ in range(3)]
        for server in servers:
            await server.start()
            stack.push_async_callback(server.stop, 0)
        with ExitStack() as proxies:
            program = PROGRAMS["nginx"]
            site = site_for("nginx", [server.port for server in servers], tmp_path, pair)
            proxies.enter_context(running(program, program.fitted(site), site))
            found = names(await examined(site.plain))
    assert "one-log" in found
    assert found <= {"one-log", "buffering"}  # an event that is published at another node does not come


async def test_a_deaf_node_is_found(server: Server, tmp_path: Path, pair: Pair) -> None:
    """A node that is not ready is found behind a proxy that does not check it."""
    deaf = Server(Settings(port=0))
    await deaf.start()
    try:
        deaf.node.fail("a test has said so")
        program = PROGRAMS["nginx"]
        site = site_for("nginx", [server.port, server.port, deaf.port], tmp_path, pair)
        with running(program, program.fitted(site), site):
            diagnosis = await examined(site.plain)
        assert "ready" in names(diagnosis), diagnosis.findings
    finally:
        await deaf.stop(0)


async def test_a_rewritten_origin_is_found_without_being_asked_for(server: Server, tmp_path: Path, pair: Pair) -> None:
    """The server's own pages are refused by it, so it is named also where no page's origin is given."""
    program = PROGRAMS["nginx"]
    site = site_for("nginx", [server.port] * 3, tmp_path, pair)
    text = added(NGINX, f"proxy_set_header Origin {INTERNAL};")(program.fitted(site))
    with running(program, text, site):
        diagnosis = await examined(site.plain, origin=None)
    assert {"origin"} == names(diagnosis), diagnosis.findings
    assert "proxy_set_header Origin" in diagnosis.wrong[0].cure


async def test_an_origin_that_is_refused_is_found(server: Server) -> None:
    """The server itself refuses it, and the cure is a setting."""
    diagnosis = await examined(server.port, origin="https://other.example")
    assert {"origin"} == names(diagnosis)
    assert "`origins`" in diagnosis.wrong[0].cure


@pytest.mark.parametrize(("lifetime", "found"), [(60, set()), (-3600, {"token"})])
async def test_a_token_is_judged(lifetime: int, found: set[str]) -> None:
    """One that fits has no finding, and one that has ended is found, with the server's words."""
    rule = ChannelRule(subscribe="token", publish="token")
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET), channels={"doctor": rule}))
    await server.start()
    try:
        token = jwt.encode({"sub": "ann", "exp": int(time.time()) + lifetime}, SECRET, "HS256")
        assert found == names(await examined(server.port, origin=None, token=token))
        without = {each.check: each for each in (await examined(server.port, origin=None)).findings}
        assert "ONCECAST_TOKEN" in without["token"].text
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("nginx", added(NGINX, 'proxy_set_header Authorization "";')),
        ("haproxy", added(HAPROXY, "    http-request del-header Authorization")),
        ("caddy", added(CADDY, "\t\theader_up -Authorization")),
        ("httpd", added(HTTPD, "    RequestHeader unset Authorization")),
    ],
    ids=["nginx", "haproxy", "caddy", "httpd"],
)
async def test_a_proxy_that_keeps_the_token(name: str, change: Changed, tmp_path: Path, pair: Pair) -> None:
    """A token that fits has no finding behind our file, and one that does not reach the server is found."""
    rule = ChannelRule(subscribe="token", publish="token")
    server = Server(Settings(port=0, auth=AuthSettings(secret=SECRET), channels={"doctor": rule}))
    await server.start()
    try:
        token = jwt.encode({"sub": "ann", "exp": int(time.time()) + 600}, SECRET, "HS256")
        program = PROGRAMS[name]
        site = site_for(name, [server.port] * 3, tmp_path, pair)
        text = program.fitted(site)
        for fitted, found in ((text, set()), (change(text), {"token"})):
            with running(program, fitted, site):
                assert found == names(await examined(site.plain, origin=None, token=token, proxy=name))
    finally:
        await server.stop(0)


@pytest.mark.parametrize(
    ("taken", "first"),
    [(1, "host"), (2, "token"), (8, "token"), (9, "cors"), (11, "upgrade"), (12, "buffering"), (15, "one-log")],
)
async def test_a_server_that_goes_away_meanwhile(server: Server, taken: int, first: str) -> None:
    """What was found before is kept. The server is at fault, and what needed a connection is not known."""

    def plan(number: int, _random: Random) -> Plan:
        if number == taken - 1:
            pipe.refuse()
        return Plan()

    async with FaultyPipe(("127.0.0.1", server.port), plan) as pipe:
        diagnosis = await examined(pipe.port)
    found = {each.check: each for each in diagnosis.findings}
    assert list(CHECKS) == list(found)
    assert {"server"} == names(diagnosis) - {"ready"}, diagnosis.findings
    assert "had no connection" in found["server"].text
    assert Judgement.WELL is found["clock"].verdict
    late = list(CHECKS)[max(list(CHECKS).index(each) for each in (first, "token")) :]
    assert {Judgement.UNKNOWN} == {found[check].verdict for check in (first, *late)}, diagnosis.findings


async def test_a_server_that_is_away() -> None:
    """Nothing is judged where no connection can be opened."""
    with pytest.raises(Unreachable):
        await examined(free_ports(1)[0])
