"""The commands: their help, their examples, and their order."""

from __future__ import annotations

import re

import click
import pytest

from oncecast import __version__
from oncecast.cli import base, bench, interrupt
from oncecast.cli.commands import commands
from tests.cli.conftest import call, complaint

COMMANDS = [
    [],
    ["bench"],
    ["serve"],
    ["pub"],
    ["sub"],
    ["config"],
    ["config", "check"],
    ["config", "show"],
    ["config", "init"],
]


def test_version() -> None:
    """The version is the package's."""
    assert f"oncecast {__version__}\n" == call("--version").stdout


@pytest.mark.parametrize("group", [[], ["config"], ["token"], ["key"], ["broker"]], ids=" ".join)
def test_a_list_of_commands_cuts_no_sentence(group: list[str]) -> None:
    """Click shortens a long first sentence, so each of those has a short one."""
    _usage, *lines = call(*group, "--help", COLUMNS="80").stdout.splitlines()
    assert [] == [line for line in lines if line.endswith("...")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches(command: list[str]) -> None:
    """Each help fits a terminal, shows examples, and every example is a call that parses."""
    result = call(*command, "--help", COLUMNS="80")
    assert (0, []) == (result.exit_code, [line for line in result.stdout.splitlines() if len(line) > 80])
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


@pytest.mark.parametrize(
    "command, expected",
    [
        ("bogus", "No such command 'bogus'; see: oncecast --help"),
        ("serve --bogus", "No such option '--bogus'"),
        ("sub", "Missing argument 'CHANNEL...'; see: oncecast sub --help"),
        ("pub c x --type foo", "Invalid value for '--type': 'foo' is not one of"),
        (
            "sub c --count 0",
            "Invalid value for '--count': '0' is not a number of messages: give an integer from 1 to 9",
        ),
        (f"sub c --last {'9' * 5000}", f"Invalid value for '--last': '{'9' * 60}…' is not a number of messages"),
        ("sub c --last -1", "Invalid value for '--last': '-1' is not a number of messages: give an integer from 0 to"),
        ("sub c --last nan", "Invalid value for '--last': 'nan' is not a number of messages"),
        (f"sub c --since {'9' * 400}d", f"'{'9' * 60}' is not a time"),
        ("sub c --since nan", "'nan' is not a time"),
        (f"serve --port {'9' * 5000}", f'command line: --port must be an integer from 0 to 65535, not "{"9" * 59}…'),
        (
            f"serve --workers {10**400}",
            'command line: --workers must be an integer from 1 to 256, or "auto", not a num',
        ),
        (f"bench --subscribers {'9' * 5000}", "Invalid value for '--subscribers': '99"),
    ],
    ids=range(13),
)
def test_a_wrong_call_is_one_line(command: str, expected: str) -> None:
    """What is wrong with a call is one line of bounded length, with exit code 2."""
    line = complaint(call(*command.split()), 2)
    assert line.startswith(expected)
    assert len(line) < 300


def test_a_group_without_a_command_shows_its_help() -> None:
    """It is not an error."""
    assert "Commands:" in call("config").output


def test_every_exit_code_is_in_the_table() -> None:
    """The codes that the modules name are those that the page of the commands explains."""
    assert {0, base.FAILED, base.MISUSED, interrupt.INTERRUPTED, bench.TERMINATED} == set(base.EXIT_CODES)


def test_commands_stand_in_the_order_of_need() -> None:
    """The list of commands begins with the server, and what measures it comes last."""
    names = re.findall(r"^  (\w+)  ", call("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    expected = ["serve", "pub", "sub", "config", "token", "key", "broker", "compare", "doctor", "top", "demo", "bench"]
    assert expected == names
