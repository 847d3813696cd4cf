"""The import rule: which room may import which, read from the source of every module.

Owns the tables below, and its invariant is that they are the whole rule. To add a room, give it a line in `ALLOWED`,
and a place in the drawing that stands in CONTRIBUTING.md and ARCHITECTURE.md;
to let one sibling import another, give the pair and the reason in `SIBLINGS`.

What a module imports is taken from its syntax tree, so an import inside a function or under `TYPE_CHECKING` counts
like any other.
"""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "oncecast"
SOURCE = Path(__file__).parent.parent / "src" / PACKAGE

VALUES = frozenset({"errors", "message"})
PARTS = VALUES | {"wire", "policy", "brokers"}
CORE = PARTS | {"core"}
PROTOCOL = CORE | {"protocol"}
HTTP = PROTOCOL | {"http"}
ASGI = HTTP | {"server", "client"}
FACES = ASGI | {"asgi"}

# The room on the left may import the rooms on the right. `oncecast/__init__.py` is the room "": the public face.
ALLOWED: Mapping[str, frozenset[str]] = {
    "errors": frozenset(),
    "message": frozenset({"errors"}),
    "wire": VALUES,
    "policy": VALUES,
    "brokers": VALUES,
    "core": PARTS,
    "protocol": CORE,
    "http": PROTOCOL,
    "server": HTTP,
    "client": VALUES | {"wire"},
    "asgi": ASGI,
    "compare": VALUES | {"wire", "client"},
    "doctor": VALUES | {"wire", "client"},
    "cli": FACES | {"compare", "doctor"},
    "__main__": frozenset({"cli"}),
    "": FACES,
    "testing": FACES | {""},
}
NOT_DRAWN = frozenset({"__main__", "", "testing"})

# Inside these rooms modules build on each other, though never in a circle. In every other room a module imports only
# its room's `base` and the pairs in SIBLINGS.
OPEN_ROOMS = frozenset({"core", "http", "server", "client", "asgi", "compare", "doctor", "cli", "testing"})
SIBLINGS: Mapping[tuple[str, str], str] = {
    ("wire.ws_connection", "wire.ws_frames"): "a connection is a sequence of frames",
    ("wire.ws_connection", "wire.ws_reader"): "its sending side and its reading side",
    ("wire.ws_reader", "wire.ws_frames"): "what is read is a sequence of frames",
    ("wire.ws_deflate", "wire.ws_frames"): "what it can't inflate is a frame's fault",
    ("wire.ws_deflate", "wire.ws_handshake"): "an extension is negotiated in the handshake",
    ("protocol.events", "protocol.query"): "a session begins with its request",
    ("protocol.polls", "protocol.query"): "a poll begins with its request",
    ("protocol.raw", "protocol.query"): "a session begins with its request",
    ("protocol.v1", "protocol.query"): "a session begins with its request",
    ("protocol.raw", "protocol.duplex"): "what both sessions that publish share",
    ("protocol.v1", "protocol.duplex"): "what both sessions that publish share",
    ("wire.http1", "wire.http1_base"): "the terms that all of HTTP/1.1 shares",
    ("wire.http1_head", "wire.http1_base"): "the terms that all of HTTP/1.1 shares",
    ("wire.http1_response", "wire.http1_base"): "the terms that all of HTTP/1.1 shares",
    ("wire.http1_client", "wire.http1_base"): "the terms that all of HTTP/1.1 shares",
    ("wire.http1", "wire.http1_head"): "a request begins with its head",
    ("wire.draft_fields", "wire.payload"): "a draft has data",
    ("wire.draft_fields", "wire.traceparent"): "a draft has the context of a trace",
    ("wire.envelope", "wire.traceparent"): "so has a message",
    ("wire.v1_frames", "wire.payload"): "a frame is checked as a peer's JSON",
    ("wire.v1_frames", "wire.draft_fields"): "a frame that publishes has a draft's fields",
    ("wire.v1_frames", "wire.envelope"): "a frame with a message has its envelope",
    ("policy.origin", "policy.authority"): "an origin has a host and a port",
    ("policy.forwarded", "policy.authority"): "addresses are compared in their one spelling",
    ("policy.hosts", "policy.authority"): "hosts are compared in their one spelling",
    ("policy.access", "policy.identity"): "access is asked with an identity",
    ("policy.identity", "policy.channels"): "an identity has patterns of channels",
    ("policy.quotas", "policy.bucket"): "what a limit allows at once is the same for all of them",
    ("policy.quotas", "policy.channels"): "channels have quotas by pattern",
    ("policy.quotas", "policy.forwarded"): "an address is counted, and not a proxy's",
    ("policy.quotas", "policy.identity"): "a user is counted",
    ("policy.quotas", "policy.limits"): "the limits are what is held to",
    ("policy.quotas", "policy.sketch"): "rates and counts of any number of keys",
    ("policy.rules", "policy.access"): "the rules are what is asked",
    ("policy.rules", "policy.channels"): "a rule is for the channels of a pattern",
    ("policy.rules", "policy.identity"): "a rule is for an identity",
    ("policy.tokens", "policy.channels"): "a token grants patterns of channels",
    ("policy.tokens", "policy.identity"): "a token proves an identity",
    ("policy.tokens", "policy.keys"): "a token is signed with a key",
    ("policy.server_keys", "policy.identity"): "a key proves an identity",
    ("policy.authenticator", "policy.identity"): "credentials prove an identity",
    ("policy.authenticator", "policy.server_keys"): "a key is one kind of credentials",
    ("policy.authenticator", "policy.tokens"): "a token is the other",
    ("wire.http1", "wire.http1_response"): "one name to import for both directions of a server",
}

# Pieces that brokers share, beside `brokers.base`. A broker may import these, and what is in a folder of its own.
SHARED_BY_BROKERS = frozenset(
    {
        "address",
        "bell",
        "complaints",
        "follow",
        "handover",
        "intake",
        "lives",
        "meters",
        "operable",
        "outbox",
        "probes",
        "reads",
        "remote",
        "remote_publishes",
        "remote_reads",
        "session",
        "stored",
        "surplus",
        "wanting",
        "worker",
    }
)
FOLDERS_SHARED_BY_BROKERS = frozenset({"followed"})

# What of the room others may import: the contract, and what a broker may have beside it.
CONTRACT_OF_BROKERS = frozenset({"brokers", "brokers.base", "brokers.meters", "brokers.operable"})

# A concrete broker is chosen where the settings are read, so that everything else holds for every broker.
BUILDERS_OF_BROKERS = frozenset({"server", "testing"})

# Time, scheduling and input are handed to these rooms, so that a test can hand them others.
NOT_IN_PURE_ROOMS = frozenset({"asyncio", "socket", "ssl", "threading", "time", "logging"})
PURE_ROOMS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(["errors", "message", "wire", "policy"], NOT_IN_PURE_ROOMS),
    "core": NOT_IN_PURE_ROOMS - {"logging"},  # the lowest room that reports to an operator
    "http": NOT_IN_PURE_ROOMS,
}


@dataclass(frozen=True, slots=True)
class Import:
    """One import: both modules without the package's name in front ("" is the package itself), and the line.

    `imported` keeps its full name where it is not ours.
    """

    importer: str
    imported: str
    line: int
    ours: bool

    def __str__(self) -> str:
        return f"{title(self.importer)}:{self.line} imports {title(self.imported) if self.ours else self.imported}"


def violations(sources: Mapping[str, str]) -> list[str]:
    """Every breach of the rule in `sources`, which maps a file's path inside the package to its text.

    A breach is one line that says which import breaks which rule; an empty list means that the rule holds.
    """
    modules = {module(path) for path in sources}
    imports = all_imports(sources)
    unknown = sorted(name for name in modules if room(name) not in ALLOWED)
    breaches = [f"{title(name)}: the room {room(name)!r} has no line in ALLOWED" for name in unknown]
    for found in imports:
        breach = breach_inside(found) if found.ours else breach_outside(found)
        if breach:
            breaches.append(f"{found}: {breach}")
    return breaches + circles(imports)


def all_imports(sources: Mapping[str, str]) -> list[Import]:
    """List what all the files import, once for each line."""
    modules = {module(path) for path in sources}
    found = (each for path, text in sources.items() for each in imports_of(path, text, modules))
    return list(dict.fromkeys(found))


def breach_inside(found: Import) -> str | None:
    """Say which rule an import of one of our own modules breaks, if one."""
    source, target = room(found.importer), room(found.imported)
    concrete = target == "brokers" and found.imported not in CONTRACT_OF_BROKERS
    if source != target:
        if source in ALLOWED and target not in ALLOWED[source]:
            return f"the room {source!r} may import {', '.join(sorted(ALLOWED[source])) or 'nothing of ours'}"
        if concrete and source not in BUILDERS_OF_BROKERS:
            return "only the server builds concrete brokers; import brokers.base"
        return None
    if concrete and found.importer == "brokers":
        return "only the server builds concrete brokers; whoever imports the room would import this one"
    if source == "brokers" and beside(found.importer, found.imported):
        return None
    own_base = f"{source}.base"
    if source in OPEN_ROOMS or found.importer == source or found.imported == own_base:
        return None  # a package's __init__ is its room's face: it may show what is inside
    if (found.importer, found.imported) in SIBLINGS:
        return None
    return f"inside {source!r} a module imports only {own_base} (or a pair in SIBLINGS)"


def beside(importer: str, imported: str) -> bool:
    """Return whether a broker imports from its own folder, or a piece that brokers share."""
    folder = importer.split(".")[1:-1]
    inside = imported.split(".")[1:]
    own = bool(folder) and inside[: len(folder)] == folder
    shared = len(inside) == 1 and inside[0] in SHARED_BY_BROKERS
    return own or shared or (len(inside) == 2 and inside[0] in FOLDERS_SHARED_BY_BROKERS)


def breach_outside(found: Import) -> str | None:
    """Say which rule an import from the standard library or from others' packages breaks, if one."""
    top = found.imported.partition(".")[0]
    if top in PURE_ROOMS.get(room(found.importer), ()):
        return f"no {top} in the room {room(found.importer)!r}: it is a parameter there"
    return None


def circles(imports: list[Import]) -> list[str]:
    """Name one circle of imports, if there is one."""
    graph: dict[str, set[str]] = {}
    for found in imports:
        if found.ours:
            graph.setdefault(found.importer, set()).add(found.imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["a circle of imports: " + " imports ".join(title(name) for name in reversed(error.args[1]))]
    return []


def imports_of(path: str, text: str, modules: Set[str]) -> Iterator[Import]:
    """Yield what one file imports. `modules` tells a submodule from a name inside a module."""
    importer = module(path)
    package = path.removesuffix("/__init__.py").split("/") if path.endswith("/__init__.py") else path.split("/")[:-1]
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from resolved(importer, alias.name, None, node.lineno, modules)
        elif isinstance(node, ast.ImportFrom):
            climbed = [PACKAGE, *package][: len(package) + 2 - node.level] if node.level else []
            origin = ".".join([*climbed, *([node.module] if node.module else [])])
            for alias in node.names:
                yield from resolved(importer, origin, alias.name, node.lineno, modules)


def resolved(importer: str, origin: str, name: str | None, line: int, modules: Set[str]) -> Iterator[Import]:
    """Yield the import of `origin`, or of its submodule `name` where that is a module."""
    if origin != PACKAGE and not origin.startswith(f"{PACKAGE}."):
        yield Import(importer, origin, line, ours=False)
    elif (origin, name) != (PACKAGE, "__version__"):  # it stands before every import of the face, so it binds nobody
        inside = origin.removeprefix(PACKAGE).removeprefix(".")
        submodule = f"{inside}.{name}".removeprefix(".")
        yield Import(importer, submodule if submodule in modules else inside, line, ours=True)


def module(path: str) -> str:
    """Return the name of the module in a file, without the package in front: "" for the package itself."""
    return path.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", ".")


def room(name: str) -> str:
    """Return the room of a module: the first part of its name."""
    return name.partition(".")[0]


def title(name: str) -> str:
    """Return the full name of one of our modules."""
    return f"{PACKAGE}.{name}" if name else PACKAGE


def package() -> dict[str, str]:
    """The text of every file of the package, by its path inside."""
    return {path.relative_to(SOURCE).as_posix(): path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))}


def test_the_code_keeps_the_rule() -> None:
    """No import in the package breaks the rule."""
    sources = package()
    assert {"__init__.py", "errors.py", "message.py"} <= sources.keys()
    if found := violations(sources):
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_the_rule_is_drawn_as_it_is(page: str) -> None:
    """The drawing in the pages says for each room what `ALLOWED` does."""
    text = (SOURCE.parent.parent / page).read_text("utf-8")
    drawn: dict[str, set[str]] = {}
    for line in re.findall(r"^errors ←.*$", text, re.MULTILINE):
        left: set[str] = set()
        for group in line.split("←"):
            rooms = {name.strip() for name in group.split(",")}
            for name in rooms:
                # Where it stands beside others only to be to the left of what follows, it is drawn elsewhere in full.
                drawn.setdefault(name, set()).update(left)
            left |= rooms
    assert {name: set(allowed) for name, allowed in ALLOWED.items() if name not in NOT_DRAWN} == drawn


def test_no_exception_outlives_its_use() -> None:
    """Each pair in SIBLINGS is an import that is still there."""
    used = {(found.importer, found.imported) for found in all_imports(package())}
    assert set() == SIBLINGS.keys() - used


@pytest.mark.parametrize(
    "path, text, found, rule",
    [
        ("message.py", "from .core.hub import Hub", "1 imports oncecast.core.hub", "'message' may import errors"),
        ("errors.py", "from . import message", "1 imports oncecast.message", "'errors' may import nothing"),
        (
            "wire/sse.py",
            "\n\nfrom ..core.log import Window",
            "3 imports oncecast.core.log",
            "'wire' may import errors, message",
        ),
        (
            "core/hub.py",
            "import oncecast.protocol.base",
            "1 imports oncecast.protocol.base",
            "'core' may import brokers, errors",
        ),
        (
            "client/socket.py",
            "from ..core import hub",
            "1 imports oncecast.core.hub",
            "'client' may import errors, message",
        ),
        (
            "client/http.py",
            "from ..server import listener",
            "1 imports oncecast.server.listener",
            "'client' may import",
        ),
        ("http/routes.py", "from ..server import listener", "1 imports oncecast.server.listener", "'http' may import"),
        ("http/routes.py", "import asyncio", "1 imports asyncio", "no asyncio in the room 'http'"),
        ("server/app.py", "from ..cli import main", "1 imports oncecast.cli", "'server' may import"),
        ("server/app.py", "from ..compare import plan", "1 imports oncecast.compare", "'server' may import"),
        ("compare/plan.py", "from ..server import app", "1 imports oncecast.server", "'compare' may import client"),
        ("testing/plugin.py", "from oncecast.cli import main", "1 imports oncecast.cli", "'testing' may import"),
        ("server/tls.py", "from ..nowhere import x", "1 imports oncecast.nowhere", "'server' may import"),
        ("wire/sse.py", "if 1:\n    from . import http1", "2 imports oncecast.wire.http1", "only wire.base"),
        ("wire/sse.py", "from . import Event", "1 imports oncecast.wire", "only wire.base"),
        ("brokers/redis.py", "from .memory import M", "1 imports oncecast.brokers.memory", "only brokers.base"),
        ("brokers/redis/log.py", "from ..memory import M", "1 imports oncecast.brokers.memory", "only brokers.base"),
        ("brokers/intake.py", "from .memory import M", "1 imports oncecast.brokers.memory", "only brokers.base"),
        ("core/node.py", "from ..brokers import intake", "1 imports oncecast.brokers.intake", "only the server builds"),
        ("core/node.py", "from ..brokers import memory", "1 imports oncecast.brokers.memory", "only the server builds"),
        ("cli.py", "from .brokers.memory import M", "1 imports oncecast.brokers.memory", "only the server builds"),
        ("brokers/__init__.py", "from . import memory", "1 imports oncecast.brokers.memory", "only the server builds"),
        ("wire/sse.py", "import asyncio", "1 imports asyncio", "no asyncio in the room 'wire'"),
        ("core/hub.py", "from time import monotonic", "1 imports time", "no time in the room 'core'"),
        (
            "policy/limits.py",
            "import logging.handlers",
            "1 imports logging.handlers",
            "no logging in the room 'policy'",
        ),
        ("core/node.py", "import threading", "1 imports threading", "no threading in the room 'core'"),
    ],
)
def test_a_breach_is_refused(path: str, text: str, found: str, rule: str) -> None:
    """Each kind of forbidden import is found, and the message names the import and the rule."""
    others = [
        "brokers/memory.py",
        "brokers/intake.py",
        "core/hub.py",
        "core/log.py",
        "message.py",
        "protocol/base.py",
        "server/listener.py",
    ]
    others += ["wire/http1.py", "wire/__init__.py"]
    breaches = violations({**dict.fromkeys(others, ""), path: text})
    assert 1 == len(breaches)
    assert breaches[0].startswith(f"{title(module(path))}:{found}: ")
    assert rule in breaches[0]


def test_a_room_that_the_table_does_not_know_is_refused() -> None:
    """A new room has to be given its line before anything can stand in it."""
    assert ["oncecast.attic.old: the room 'attic' has no line in ALLOWED"] == violations({"attic/old.py": ""})


@pytest.mark.parametrize(
    "path, text",
    [
        ("message.py", "from .errors import Refusal"),
        ("wire/__init__.py", "from .http1 import Parser"),
        ("wire/http1.py", "from .. import __version__"),
        ("wire/http1.py", "from . import base\nfrom .base import Event"),
        ("wire/ws_connection.py", "from . import ws_frames\nimport struct, timeit"),
        ("core/node.py", "import logging"),
        ("brokers/redis/log.py", "from ..base import Broker\nfrom ..intake import Intake\nfrom .script import S"),
        ("core/hub.py", "from ..brokers.base import Broker\nfrom ..brokers import Position"),
        ("server/listener.py", "import asyncio, socket, ssl, threading, time\nfrom . import app"),
        ("server/workers.py", "from ..brokers.memory import MemoryBroker"),
        ("testing/plugin.py", "from ..server import listener\nfrom ..brokers import memory"),
        ("__init__.py", "from .client import Client\nfrom .core.node import Node"),
        ("cli.py", "from . import __version__, client\nfrom .server.listener import serve"),
    ],
)
def test_what_the_rule_allows_is_let_through(path: str, text: str) -> None:
    """The imports that the design draws are no breach."""
    others = [
        "client/__init__.py",
        "brokers/memory.py",
        "brokers/intake.py",
        "brokers/redis/script.py",
        "server/listener.py",
        "server/app.py",
        "wire/base.py",
    ]
    others += ["wire/http1.py", "wire/ws_frames.py"]
    assert [] == violations({**dict.fromkeys(others, ""), path: text})


@pytest.mark.parametrize(
    "sources, names",
    [
        ({"server/a.py": "from . import b", "server/b.py": "from . import a"}, {"server.a", "server.b"}),
        ({"client/a.py": "from .b import x", "client/b.py": "import oncecast.client.a"}, {"client.a", "client.b"}),
        ({"__init__.py": "from .core.node import Node", "core/node.py": ""}, set()),
        (
            {"testing/__init__.py": "from .pipe import Pipe", "testing/pipe.py": "from . import x"},
            {"testing", "testing.pipe"},
        ),
    ],
)
def test_a_circle_is_refused(sources: dict[str, str], names: set[str]) -> None:
    """Modules that import one another are named, also where the room lets siblings meet."""
    found = violations(sources)
    assert bool(names) == bool(found)
    if names:
        assert found[0].startswith("a circle of imports: ")
        assert {title(name) for name in names} == set(found[0].partition(": ")[2].split(" imports "))
