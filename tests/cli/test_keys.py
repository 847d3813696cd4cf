"""`oncecast key create`."""

from __future__ import annotations

from oncecast.policy.server_keys import ServerKeys
from tests.cli.conftest import call, complaint


def test_a_key_and_its_line() -> None:
    """The line is one that a server takes, for the key that is printed, which is another each time."""
    result = call("key", "create", "--name", "shop")
    (first, key), (second, line) = (each.split() for each in result.stdout.splitlines())
    assert ("key", "line") == (first, second)
    identity = ServerKeys([line]).find(key)
    assert ("shop", "server") == (identity.subject, identity.kind)
    assert "not shown again" in result.stderr
    assert key not in call("key", "create").stdout


def test_a_name_that_is_none() -> None:
    """An invalid name is an error of one line."""
    assert complaint(call("key", "create", "--name", "a:b"), 2).startswith("'a:b' can't name a key")
