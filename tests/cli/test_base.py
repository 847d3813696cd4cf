"""What all commands share: output that is not taken, and Ctrl-C."""

from __future__ import annotations

import errno
import os
import re
from typing import Any

import click
import pytest

from oncecast.cli import base
from tests.cli.conftest import (
    Fake,
    call,
    event,
)

OUTPUTS = [["sub", "c", "--transport", "sse"], ["pub", "c", "x"], ["config", "show"], ["config", "check"], ["--help"]]


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("error", [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.ENOSPC, "No space left")])
def test_output_that_can_not_be_written(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: OSError
) -> None:
    """A closed pipe ends each command without a word, a full disk with one line, and the last flush raises nothing."""
    replaced: list[int] = []
    echo = click.echo

    def failing(message: object = None, *, err: bool = False, **options: Any) -> None:
        if not err and "file" not in options:
            raise error
        echo(message, err=err, **options)

    monkeypatch.setattr(click, "echo", failing)
    monkeypatch.setattr(click.core, "echo", failing)
    monkeypatch.setattr(click.decorators, "echo", failing)
    monkeypatch.setattr(os, "dup2", lambda _new, old: replaced.append(old))
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.fileno", lambda _self: 1, raising=False)
    fake.streams = [event(1, data="x")]
    result = call(*arguments, ONCECAST_URL=fake.url)
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("listening")]
    if isinstance(error, BrokenPipeError):
        assert (0, [], [1]) == (result.exit_code, complaints, replaced)
    else:
        assert (1, 1, [1]) == (result.exit_code, len(complaints), replaced)
        assert re.fullmatch(r"Error: .*No space left", complaints[0])


def test_an_interrupt_is_no_traceback() -> None:
    """Ctrl-C wherever a command does not wait for it ends with the shell's code for it."""
    with pytest.raises(SystemExit) as ended, base.quietly():
        raise KeyboardInterrupt
    assert 130 == ended.value.code
