"""The commands: their help, their examples, and their order."""

from __future__ import annotations

import re

import click
import pytest

from oncecast import __version__
from oncecast.cli.commands import commands
from tests.cli.conftest import (
    call,
)

COMMANDS = [[], ["serve"], ["pub"], ["sub"], ["config"], ["config", "check"], ["config", "show"], ["config", "init"]]


def test_version() -> None:
    """The version is the package's."""
    assert f"oncecast {__version__}\n" == call("--version").stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(command: list[str]) -> None:
    """Each help fits a terminal, shows examples, and every example is a call that parses."""
    result = call(*command, "--help")
    assert (0, []) == (result.exit_code, [line for line in result.stdout.splitlines() if len(line) > 100])
    examples = re.findall(r"^ {4}.*?oncecast ([^|&\n]+)", result.stdout, re.MULTILINE)
    assert examples
    for example in examples:
        words = re.findall(r"""'[^']*'|"[^"]*"|\S+""", example)
        arguments = [word.strip("'\"") for word in words]
        group: click.Command = commands
        with click.Context(group) as context:
            while isinstance(group, click.Group):
                _, found, arguments = group.resolve_command(context, arguments)
                assert found is not None
                group = found
            group.make_context("oncecast", arguments)


def test_commands_stand_in_the_order_of_need() -> None:
    """The list of commands begins with the server, and what measures it comes last."""
    names = re.findall(r"^  (\w+)  ", call("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert ["serve", "pub", "sub", "config", "bench"] == names
