"""The pytest plugin, as the tests of an application have it: in a pytest of their own."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

OPTIONS = (
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-W",
    "error",
    "-o",
    "asyncio_default_fixture_loop_scope=function",
)

SYNC = """
from oncecast.testing.app import OncecastFixture

def test_sync(oncecast: OncecastFixture) -> None:
    listener = oncecast.subscribe("orders")
    oncecast.publish("orders", {"id": 1})
    assert listener.data == [{"id": 1}]

def test_each_test_has_its_own_log(oncecast: OncecastFixture) -> None:
    assert oncecast.subscribe("orders", after="earliest").data == []
"""
ASYNCIO = """
import pytest

@pytest.mark.asyncio
async def test_asyncio(oncecast):
    listener = oncecast.subscribe("orders")
    oncecast.publish("orders", 1)
    assert [1] == [message.data for message in await listener.arrival()]
"""
ANYIO = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
async def test_anyio(oncecast):
    listener = oncecast.subscribe("orders")
    oncecast.publish("orders", 1)
    assert [1] == [message.data for message in await listener.arrival()]
"""
UNUSED = """
import sys

def test_unused():
    loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "oncecast")
    assert loaded == ["oncecast", "oncecast.testing", "oncecast.testing.plugin"]
"""
OWN = """
import pytest

@pytest.fixture
def oncecast():
    return "mine"

def test_mine(oncecast):
    assert oncecast == "mine"
"""


def run(pytester: pytest.Pytester, *tests: str) -> pytest.RunResult:
    """Run these tests in a pytest of their own."""
    pytester.makepyfile(**{f"test_{number}": text for number, text in enumerate(tests)})
    return pytester.runpytest_subprocess(*OPTIONS)


def test_in_every_kind_of_test(pytester: pytest.Pytester) -> None:
    """Plain tests, those of pytest-asyncio and of anyio: the fixture is there without an import."""
    run(pytester, SYNC, ASYNCIO, ANYIO).assert_outcomes(passed=4)


def test_who_does_not_use_it_does_not_pay(pytester: pytest.Pytester) -> None:
    """Without the fixture three small modules are imported, and a user's own fixture of this name is theirs."""
    run(pytester, UNUSED, OWN).assert_outcomes(passed=2)


def test_the_fixtures_explain_themselves(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` has a line for each."""
    shown = pytester.runpytest_subprocess(*OPTIONS, "--fixtures")
    shown.stdout.fnmatch_lines(["oncecast_app -- *", "oncecast -- *", "*instead of the broker of*"])
