"""Keys of servers: made once, and known by their hashes."""

from __future__ import annotations

import re

import pytest

from oncecast.errors import ConfigurationError, Refusal
from oncecast.policy.identity import Identity
from oncecast.policy.server_keys import ServerKeys, hash_line, make_key

OLD, NEW = make_key(bytes(32)), make_key(b"n" * 32)


def test_keys_are_known_by_their_hashes() -> None:
    """Several hold at once, for a rotation; what the settings have does not have the keys."""
    lines = [hash_line("shop-1", OLD), hash_line("shop-2", NEW)]
    keys = ServerKeys(lines)
    assert 2 == len(keys)
    assert [Identity("", "shop-1", "server"), Identity("", "shop-2", "server")] == [keys.find(OLD), keys.find(NEW)]
    assert re.fullmatch("shop-1:sha256:[0-9a-f]{64}", lines[0])
    assert not any(key[4:] in line for key in (OLD, NEW) for line in lines)


@pytest.mark.parametrize("key", ["", "ock_", OLD[:-1], OLD + "A", "ock_" + "é" * 43, make_key(b"x" * 32), "ock_\ud800"])
def test_other_keys_are_refused(key: str) -> None:
    """Any other text is refused, whatever its form."""
    with pytest.raises(Refusal, match="This server does not know that key") as caught:
        ServerKeys([hash_line("a", OLD)]).find(key)
    assert "unauthorized" == caught.value.code


@pytest.mark.parametrize(
    "lines, message",
    [
        ([OLD], "a key itself, not its hash"),
        (["a:md5:" + "0" * 32], "not NAME:sha256:HEX"),
        ([hash_line("a", OLD).upper()], "not NAME:sha256:HEX"),
        ([hash_line("a", OLD), hash_line("a", NEW)], "the name a twice"),
    ],
)
def test_lines_that_are_none(lines: list[str], message: str) -> None:
    """The error says what to do, and repeats nothing of the line."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        ServerKeys(lines)
    assert OLD not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a:b", "-a", "a b", "x" * 65, "é"])
def test_names_that_are_none(name: str) -> None:
    """A line has its colons in two places only."""
    with pytest.raises(ConfigurationError, match="can't name a key"):
        hash_line(name, OLD)
