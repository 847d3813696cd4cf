"""The public names of the package: what they are, that each is one thing, and that the reference has them all."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import oncecast
from oncecast import client, errors

SOURCE = Path(oncecast.__file__).parent
REFERENCES = [
    Path(__file__).parent.parent / "docs" / "reference" / f"{name}.md" for name in ("python-client", "in-app")
]
NAMES = {
    "Ack",
    "AsyncClient",
    "BlockingMessages",
    "Broken",
    "Caller",
    "Client",
    "ClientFailed",
    "ClientMessage",
    "EventAnswer",
    "Gap",
    "GapError",
    "Grant",
    "History",
    "LinkState",
    "Messages",
    "Moved",
    "Oncecast",
    "OncecastError",
    "Outgoing",
    "Publication",
    "PublishFailed",
    "Refused",
    "StateChanged",
    "SubscriptionEnded",
    "Timing",
    "TransportMemory",
    "Unavailable",
    "Unreachable",
    "UsageError",
}


def test_the_public_names() -> None:
    """They are these; a name more or less is a change that users see."""
    assert NAMES == set(oncecast.__all__)
    assert NAMES <= set(dir(oncecast))
    with pytest.raises(AttributeError, match="no attribute 'Session'"):
        _ = oncecast.Session  # type: ignore[attr-defined]  # this is what a checker says, too


def test_each_name_has_one_address() -> None:
    """A public name is the very class of the module that defines it, and the room of the client repeats none."""
    for name in NAMES:
        public = getattr(oncecast, name)
        assert public is getattr(importlib.import_module(public.__module__), name)
    assert not NAMES & set(vars(client))


def test_no_name_stands_for_two_classes() -> None:
    """In the room of the client, where an application and a maintainer look for a public name, it is one class."""
    found: dict[str, list[str]] = {}
    for path in sorted((SOURCE / "client").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path.name)
    assert {} == {name: files for name, files in found.items() if len(files) > 1}


def test_the_exceptions_have_one_root() -> None:
    """Whatever the package raises on purpose is caught as `OncecastError`."""
    public = [getattr(oncecast, name) for name in NAMES]
    raised = [each for each in public if inspect.isclass(each) and issubclass(each, Exception)]
    assert len(raised) > 5
    assert all(issubclass(each, errors.OncecastError) for each in raised)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_reference_has_each_name(name: str) -> None:
    """What is public is documented."""
    assert any(f"`{name}" in page.read_text("utf-8") for page in REFERENCES)


def test_importing_the_package_imports_no_client() -> None:
    """A command starts without what it does not need."""
    script = "import sys, oncecast; sys.exit('oncecast.client.http' in sys.modules or 'asyncio' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
