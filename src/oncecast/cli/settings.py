"""`oncecast config check|show|explain|init`: the settings, before a server is started with them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click

from ..message import check_channel
from ..policy.identity import ANYBODY
from ..server.auth import build_authenticator
from ..server.config import DEFAULT_FILE, example_file, to_toml
from ..server.settings import Settings
from ..server.tls import check as check_tls
from .base import MISUSED, Failure, config_option, in_one_line, load_settings, put, warn
from .explain import explain as explained
from .tokens import identify, read_token

__all__ = ["config"]


@click.group(short_help="Check, show, explain or begin the settings.")
def config() -> None:
    """Check, show, explain or begin the settings.

    \b
    Examples:
      oncecast config init && $EDITOR oncecast.toml
      oncecast config check
    """


@config.command()
@click.argument("path", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@config_option
def check(path: Path | None, file: Path | None) -> None:
    """Check the settings file and the ONCECAST_ variables.

    FILE is the settings file, as --config names it too. Prints where the settings come from and warns of what is not
    used; or names the first mistake, and exits with 2.

    \b
    Examples:
      oncecast config check
      oncecast config check /etc/oncecast.toml && systemctl restart oncecast
    """
    if path is not None and file is not None and path != file:
        raise Failure(f"FILE is {path} and --config is {file}: give one of them", MISUSED)
    loaded = load_settings(path or file, {})
    warn(loaded.warnings)
    with in_one_line():
        build_authenticator(loaded.settings.auth)  # the keys are read from their files
    read = [] if loaded.file is None else [str(loaded.file)]
    counted = Counter(source for source in loaded.sources.values() if source != "default")
    variables = sorted(source for source in counted if source not in read)
    parts = [f"{counted[name]} from {name}" for name in read] + [f"1 from {name}" for name in variables]
    parts.append("the rest are defaults" if parts else "all are defaults")
    put(f"The settings are valid: {', '.join(parts)}.")
    _check_certificates(loaded.settings)


def _check_certificates(settings: Settings) -> None:
    """Print what each certificate is for and how long, and warn of what is wrong with it."""
    if not settings.tls_cert:
        return
    with in_one_line():
        pairs, complaints = check_tls(settings)
    for pair in pairs:
        days = int((pair.until - time.time()) // 86_400)
        until = time.strftime("%Y-%m-%d", time.gmtime(pair.until))
        put(f"The certificate {pair.cert} is for {pair.shown}, until {until} ({days} days).")
    warn(complaints)


@config.command(short_help="Print every setting and its source.")
@config_option
def show(file: Path | None) -> None:
    """Print every setting that holds, as TOML, and where each comes from.

    \b
    Examples:
      oncecast config show
      ONCECAST_PORT=9000 oncecast config show | grep -v default
    """
    loaded = load_settings(file, {})
    warn(loaded.warnings)
    put(to_toml(loaded.settings, loaded.sources), nl=False)


@config.command(short_help="Print which rule decides about a channel.")
@click.argument("channel")
@click.option(
    "--token", "--key", "text", metavar="T|-", help="A token, or the key of a server; - reads it from standard input."
)
@config_option
def explain(channel: str, text: str | None, file: Path | None) -> None:
    """Print which rule decides about CHANNEL, and whether a client may subscribe and publish.

    The client is the one that the token stands for, or else anybody.

    \b
    Examples:
      oncecast config explain chat.lobby
      oncecast token create --sub ann | oncecast config explain user.ann --token -
    """
    with in_one_line():
        check_channel(channel)
    loaded = load_settings(file, {})
    warn(loaded.warnings)
    identity, asked_by = ANYBODY, "anybody: no token and no key was given"
    if text is not None:
        with in_one_line():
            identity = identify(loaded.settings.auth, read_token(text))
        asked_by = f"the {'user' if identity.kind == 'token' else 'server'} {identity.subject or 'without a sub'}"
    put(explained(loaded, channel, identity, asked_by))


@config.command(short_help="Write a settings file that explains them all.")
@click.argument("path", default=DEFAULT_FILE, type=click.Path(path_type=Path, allow_dash=True), metavar="[FILE|-]")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(path: Path, force: bool) -> None:
    """Write a settings file that explains every setting and changes none.

    Without FILE it is oncecast.toml; - prints it.

    \b
    Examples:
      oncecast config init
      oncecast config init - | less
    """
    if str(path) == "-":
        put(example_file(), nl=False)
        return
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(example_file())
    except FileExistsError:
        raise Failure(f"{path} is there already: give --force to replace it", MISUSED) from None
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror}", MISUSED) from None
    put(f"Wrote {path}. Uncomment what you want to change, then: oncecast config check")
