"""The shell blocks of the pages: a command that is shown is one that there is, with options that it has.

Each of their commands is read here, by the parser of the program itself where it is ours. They are run too: those
that are marked `run` in `test_docs.py`, the pages of brokers in `brokers/test_how_to.py`, the others in
`test_docs_shell.py`.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

from oncecast.cli.commands import commands
from oncecast.http.documents.openapi import openapi
from tests.docs_rig import ROOT, blocks, name, pages

HERE_DOCUMENT = re.compile(r"<<-?\s*'?(\w+)'?(.*)\n(?:.*\n)*?\1$", re.MULTILINE)
OPERATORS = {"|", "||", "&", "&&", ";", "(", ")"}
REDIRECTIONS = {">", ">>", "<", ">&", "&>"}
# Programs of others, which the pages use as their own manuals say.
OTHERS = {
    *("apt-get", "cat", "cd", "chmod", "echo", "grep", "jq", "kill", "less", "nats-server", "printf", "promtool"),
    *("python3", "rabbitmqctl", "redis-server", "sed", "sort", "systemctl", "tail", "tr", "$EDITOR"),
}


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script, without its redirections and assignments."""
    text = HERE_DOCUMENT.sub(r"\2", text.replace("\\\n", " "))
    pending = ""
    for line in text.splitlines():
        lexer = shlex.shlex(pending + line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            words = list(lexer)
        except ValueError:  # a quotation that goes on
            pending += line + "\n"
            continue
        pending = ""
        yield from _commands_of(words)
    assert not pending, pending


def _commands_of(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    left = iter(words)
    for word in left:
        if word in REDIRECTIONS:
            next(left)
            if command and command[-1].isdigit():  # a descriptor, as in 2>&1
                command.pop()
        elif word in OPERATORS:
            if command:
                yield command
            command = []
        elif command or not re.match(r"[A-Za-z_]\w*=", word):
            command.append(word)
    if command:
        yield command


# -- what each program takes


def check_oncecast(words: list[str]) -> None:
    """The command's own parser takes it: its name, its options, and their values."""
    command: click.Command = commands
    context = click.Context(commands, info_name="oncecast")
    path = ["oncecast"]
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        path.append(words[0])
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no {' '.join(path)}"
        command, words = found, words[1:]
    command.make_context(" ".join(path), list(words), parent=context)


@cache
def targets() -> set[str]:
    """The targets and variables of the Makefile."""
    return set(re.findall(r"^(\w+)(?::(?!=)| \?=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def check_make(words: list[str]) -> None:
    """Each word is a target, or sets a variable that the Makefile has."""
    assert {word.partition("=")[0] for word in words} <= targets(), words


def check_pip(words: list[str]) -> None:
    """An extra of ours that is named is one that there is."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"].keys()
    for word in words:
        if (found := re.fullmatch(r"oncecast(?:\[([\w,]+)\])?", word)) and found[1]:
            assert set(found[1].split(",")) <= extras, word


@cache
def operations() -> Mapping[re.Pattern[str], set[str]]:
    """The methods that the API has for each form of a path."""
    paths: dict[str, Any] = openapi()["paths"]
    return {
        re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))): {method.upper() for method in methods}
        for path, methods in paths.items()
    }


def check_curl(words: list[str]) -> None:
    """What is asked of our server is in its API, with that method."""
    (url,) = [urlsplit(word) for word in words if word.startswith(("http://", "https://"))]
    sends = any(word.startswith(("-d", "--data", "--json", "-T")) for word in words)
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if sends else "GET"
    if not url.path.startswith("/v1/"):
        return
    assert any(form.fullmatch(url.path) and method in methods for form, methods in operations().items()), words


CHECKS: Mapping[str, Callable[[list[str]], None]] = {
    "oncecast": check_oncecast,
    "make": check_make,
    "pip": check_pip,
    "curl": check_curl,
}


def check(words: list[str]) -> None:
    """Check one simple command."""
    program, *rest = words[1:] if words[0] in ("sudo", "exec") else words
    if program.startswith("scripts/"):
        assert (ROOT / program).exists(), f"there is no {program}"
    elif found := CHECKS.get(Path(program).name):
        found(rest)
    else:
        assert Path(program).name in OTHERS, f"{program}: is it what its manual says? Then add it to OTHERS"


def check_all(text: str) -> None:
    """Check each command of a script."""
    for words in simple_commands(text):
        try:
            check(words)
        except click.UsageError as error:
            raise AssertionError(f"{shlex.join(words)}: {error.format_message()}") from None


SHOWN = [
    (f"{name(page)}:{block.line}", block.text) for page in pages() for block in blocks(page) if block.language == "sh"
]


@pytest.mark.parametrize("text", [text for _, text in SHOWN], ids=[place for place, _ in SHOWN])
def test_the_commands_that_are_shown_exist(text: str) -> None:
    """Each is one that its program takes."""
    check_all(text)


@pytest.mark.parametrize(
    "line",
    [
        "oncecast nothing",
        "oncecast pub news 1 --nothing",
        "oncecast compare --seconds soon",
        "oncecast broker trim",
        "cat a.txt | .venv/bin/oncecast pub --nothing",
        "make nothing",
        "pip install 'oncecast[nothing]'",
        "curl http://127.0.0.1:8000/v1/nothing",
        "curl -X DELETE http://127.0.0.1:8000/v1/channels/a",
        "scripts/nothing",
        "nothing",
        "A=1 nothing > out.txt",
        "make serve && nothing",
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str) -> None:
    """Wherever it stands on a line."""
    with pytest.raises(AssertionError):
        check_all(line)


def test_words_of_a_script() -> None:
    """Here-documents, redirections, assignments, comments and quotations over several lines are no commands."""
    text = "A=1 b 2>&1 > c # d\ncat > e <<'END'\nf g\nEND\nh 'i\nj' \\\n k | l && m; (n)\n"
    assert [["b"], ["cat"], ["h", "i\nj", "k"], ["l"], ["m"], ["n"]] == list(simple_commands(text))
