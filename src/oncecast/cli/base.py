"""What the commands share: how results are printed, how a mistake becomes one line, how settings are found."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..client.credentials import GetToken, check_token
from ..client.failures import Broken, NotSent, Refused
from ..client.url import ServerUrl
from ..errors import ConfigurationError, Refusal, UsageError
from ..message import MAX_NUMBER
from ..server import config
from .interrupt import INTERRUPTED

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "MISUSED",
    "SHOWN_CHARS",
    "START_ONE",
    "Count",
    "Failure",
    "config_option",
    "escaped",
    "in_one_line",
    "load_settings",
    "masked",
    "put",
    "quietly",
    "say",
    "server_option",
    "token_of",
    "warn",
]

FAILED = 1
MISUSED = 2  # as with click's own errors
EXIT_CODES: Mapping[int, str] = {
    0: "Done. Also: `serve` or `demo` was stopped by SIGTERM or Ctrl-C, `sub` and `top` by Ctrl-C, or the reader of "
    "the output has gone.",
    FAILED: "The call is right, and failed: the server is away or refuses, a line was not published, a disk is full. "
    "Also: `doctor` has found something.",
    MISUSED: "The call or a setting is wrong, a file can't be read, or `serve` or `demo` can't have its address. "
    "Also: nothing answers at the URL of `doctor`.",
    INTERRUPTED: "Ctrl-C, for the commands that it does not end in good order.",
    143: "SIGTERM, for `bench`.",
}

if TYPE_CHECKING:
    _IntType = click.ParamType[int]
else:
    _IntType = click.ParamType  # generic since click 8.3

# Since click 8.2; before, click printed the help itself.
_HELP_SHOWN: tuple[type[Exception], ...] = tuple(filter(None, [getattr(click.exceptions, "NoArgsIsHelpError", None)]))
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")

_SECRET_OPTIONS = re.compile(r"([?&]\w*(?:password|token|secret|seed)=)[^&]+")

USAGE_CHARS = 240  # of what is wrong with a call, as it repeats what was given
SHOWN_CHARS = 60  # how much of a wrong value an error repeats
DEFAULT_SERVER = "http://127.0.0.1:8000"
START_ONE = "start one with `make serve` or `oncecast serve --dev`"


class Count(_IntType):
    """A number of messages from `least` on."""

    name = "number"

    def __init__(self, least: int) -> None:
        self._least = least

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. A number of any length is refused in one line of bounded length."""
        text = str(value)
        if re.fullmatch("[0-9]{1,18}", text, re.ASCII) and self._least <= int(text) <= MAX_NUMBER:
            return int(text)
        shown = text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
        raise click.BadParameter(
            f"{shown!r} is not a number of messages: give an integer from {self._least} to {MAX_NUMBER}", ctx, param
        )


class Failure(click.ClickException):
    """The command ends with one line on standard error and this exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(escaped(message))
        self.exit_code = exit_code  # type: ignore[misc]  # click declares a class variable and reads the instance's


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Turn the package's exceptions into a `Failure`."""
    try:
        yield
    except (ConfigurationError, UsageError, Refusal, NotSent) as error:
        raise Failure(str(error), MISUSED) from None
    except (Broken, Refused) as error:
        raise Failure(str(error), FAILED) from None


def put(result: str | bytes, *, nl: bool = True) -> None:
    """Print a result on standard output, at once. Raises `Failure` where it can't be written, such as to a full disk.

    Where the reader has closed the pipe, as `head -1` does, the command ends with exit code 0.
    """
    try:
        click.echo(result, nl=nl)
    except BrokenPipeError:
        raise  # `quietly` ends the command
    except OSError as error:
        _close_output()
        raise Failure(f"standard output can't be written: {error.strerror or error}", FAILED) from None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """End a command without a traceback: at Ctrl-C, a closed pipe, an error of the system, or a wrong call."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except _HELP_SHOWN:
        raise  # it prints the help
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "oncecast"
        text = error.format_message().rstrip(".")
        shown = text if len(text) <= USAGE_CHARS else text[:USAGE_CHARS] + "…"
        raise Failure(f"{shown}; see: {command} --help", MISUSED) from None
    except BrokenPipeError:
        _close_output()
        sys.exit(0)
    except OSError as error:
        _close_output()
        raise Failure(error.strerror or str(error), FAILED) from None


def _close_output() -> None:
    """Point standard output at /dev/null: the interpreter flushes it again at its exit, which must not fail."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def escaped(text: str) -> str:
    r"""Write control characters as \n or \x1b, so that what a peer sent stays on its line and changes no terminal."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def load_settings(file: Path | None, flags: Mapping[str, object]) -> config.Loaded:
    """Return the settings from flags, environment and file. Raises `Failure`."""
    with in_one_line():
        return config.load(file=file, environ=os.environ, flags=flags)


def masked(url: str) -> str:
    """Return a broker's URL with `...` for its password, and for a user that NATS takes as a token."""
    scheme, slashes, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = credentials.partition(":")
        rest = f"{user}:...@{place}" if colon else f"...@{place}" if scheme in ("nats", "tls") else rest
    return _SECRET_OPTIONS.sub(r"\1...", scheme + slashes + rest)


def say(line: str) -> None:
    """Print a line on standard error. That it can't be written is no reason to end the command."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def warn(lines: Iterable[str]) -> None:
    """Print each line on standard error as a warning."""
    for line in lines:
        say(f"Warning: {escaped(line)}")


def token_of() -> GetToken | None:
    """Return what gives the token or key of `ONCECAST_TOKEN`, or None. Raises `Failure` for what can be neither.

    No flag has it: other users can see flags.
    """
    token = os.environ.get("ONCECAST_TOKEN", "").strip()
    if not token:
        return None
    try:
        check_token(token)
    except ValueError as error:
        raise Failure(f"ONCECAST_TOKEN is no token and no key: {error}", MISUSED) from None
    return lambda: token


def _parse_server(_context: click.Context, _parameter: click.Parameter, value: str) -> ServerUrl:
    with in_one_line():
        return ServerUrl.parse(value)


config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings file.  [default: oncecast.toml, if it is there]",
)

server_option = click.option(
    "--server",
    metavar="URL",
    envvar="ONCECAST_URL",
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    callback=_parse_server,
    help="The server.",
)
