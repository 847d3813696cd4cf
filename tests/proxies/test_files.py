"""What is written about proxies: Traefik's file, which is read and not run, and the lines that the page repeats."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.proxies.programs import FILES, SERVERS, uncommented

PAGE = (FILES.parents[1] / "docs" / "how-to" / "behind-a-proxy.md").read_text("utf-8")
# The keys of Traefik's file provider that are used, by what they stand in.
KEYS = {
    "http": {"routers", "middlewares", "services"},
    "router": {"rule", "entryPoints", "middlewares", "service", "tls"},
    "loadBalancer": {"servers", "healthCheck", "passHostHeader", "sticky", "strategy"},
}


def traefik(sticky: str | None = None) -> dict[str, Any]:
    """Return the file, with the line of a kind of stickiness uncommented."""
    text = (FILES / "traefik.yaml").read_text("utf-8")
    whole: dict[str, Any] = yaml.safe_load(text if sticky is None else uncommented(text, rf"\S.*# by {sticky}\b"))
    assert ["http"] == list(whole)
    http: dict[str, Any] = whole["http"]
    return http


@pytest.mark.parametrize(("sticky", "key"), [(None, None), ("cookie", "sticky"), ("source", "strategy")])
def test_traefiks_file_is_whole(sticky: str | None, key: str | None) -> None:
    """It has known keys alone, each name that it refers to is defined, and the servers are those of the other files."""
    http = traefik(sticky)
    assert set(http) == KEYS["http"]
    for router in http["routers"].values():
        assert set(router) <= KEYS["router"]
        assert router["service"] in http["services"]
        assert set(router.get("middlewares", ())) <= set(http["middlewares"])
    balancer = http["services"]["oncecast"]["loadBalancer"]
    assert set(balancer) <= KEYS["loadBalancer"]
    assert {key} - {None} == set(balancer) & {"sticky", "strategy"}
    assert [f"http://{server}" for server in SERVERS] == [server["url"] for server in balancer["servers"]]


def test_traefik_strips_the_prefix() -> None:
    """What is below the prefix reaches the server without it."""
    http = traefik()
    (prefix,) = http["middlewares"]["without-live"]["stripPrefix"]["prefixes"]
    assert f"PathPrefix(`{prefix}/`)" in http["routers"]["oncecast-live"]["rule"]


@pytest.mark.parametrize(
    ("title", "file"),
    [
        ("nginx", "nginx.conf"),
        ("HAProxy", "haproxy.cfg"),
        ("Caddy", "Caddyfile"),
        ("Apache httpd", "httpd.conf"),
        ("Traefik", "traefik.yaml"),
    ],
)
def test_the_page_repeats_the_file(title: str, file: str) -> None:
    """Each line that the page shows for a proxy stands in its file."""
    block = re.search(rf"^## {title}\n\n```\w+\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert block is not None
    lines = (FILES / file).read_text("utf-8").splitlines()
    assert [] == [line for line in block[1].splitlines() if line not in lines]


def test_no_file_changes_a_timeout() -> None:
    """The files leave the proxies' own timeouts, which heartbeats fit; HAProxy has none, and is given Debian's."""
    for file in ("nginx.conf", "Caddyfile", "httpd.conf", "traefik.yaml"):
        lines = [line.strip() for line in (FILES / file).read_text("utf-8").splitlines()]
        assert [] == [line for line in lines if re.match(r"(?i)\w*timeout", line)], file
    assert {"5s", "50s"} == set(re.findall(r"timeout \w+ +(\d+s)", (FILES / "haproxy.cfg").read_text("utf-8")))
