"""Reads every source of settings, and merges them.

Invariant: what `load` returns has been checked, whole; what is wrong is one `ConfigurationError` of one line that names
the source and the key. Flags win over `ONCECAST_…` variables, these over a TOML file, the file over defaults. A wrong
value that another source overrides is a warning.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import ConfigurationError
from ..settings import DEFAULT_BROKER, MEMORY, AuthSettings, ChannelRule, Limits, RetentionSettings, Settings
from .contradictions import check_listening, check_together, find_unused
from .environment import read_environment
from .file import read_file
from .setting import TABLES, Given, Path, dotted

__all__ = ["DEFAULT_FILE", "Loaded", "Sources", "load"]

DEFAULT_FILE = "oncecast.toml"
_DEFAULTS = {dotted((*table, key)): "default" for table, keys in TABLES.items() for key in keys}
FLAGS = {"origins": "--origin", "hosts": "--allowed-host"}  # those that have another name than their setting


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked settings, the file that was read if any, and where each value came from.

    `sources` has the dotted key (`port`, `limits.message_bytes`, `channels."chat.*".lag`) and `default`, the file's
    name, the variable's or the flag's. `warnings` has a line for each kind of thing that was given and is not used.
    """

    settings: Settings
    sources: dict[str, str]
    file: pathlib.Path | None
    warnings: tuple[str, ...] = ()


def load(
    *, file: pathlib.Path | None, environ: Mapping[str, str], flags: Mapping[str, object], call: str = ""
) -> Loaded:
    """Read, check and merge every source.

    `file` must exist if it is given; without one, `oncecast.toml` in the working directory is read if it is there.
    `flags` has top-level keys as in `Settings`; `None` and `()` mean that the flag was not given. Where they are
    arguments in Python, `call` is what was called: then nothing listens, and how to listen is not checked. Raises
    `ConfigurationError`.
    """
    if file is None and pathlib.Path(DEFAULT_FILE).exists():  # a directory of that name is reported as a mistake
        file = pathlib.Path(DEFAULT_FILE)
    warnings: list[str] = []
    found: dict[Path, tuple[object, str]] = {}
    _take(_from_call(call, flags) if call else _from_flags(flags), found, warnings)
    _take(read_environment(environ, warnings), found, warnings)
    if file is not None:
        _take(read_file(file), found, warnings)
    # A trial in development leaves no file behind.
    dev, _ = found.get(("dev",), (False, ""))
    found.setdefault(("broker",), (MEMORY if dev else DEFAULT_BROKER, "default"))

    values: dict[Path, dict[str, object]] = {}
    sources = dict(_DEFAULTS)
    for (*table, key), (value, source) in found.items():
        values.setdefault(tuple(table), {})[key] = value
        sources[dotted((*table, key))] = source
    rules = {table[1]: ChannelRule(**keys) for table, keys in values.items() if table[:1] == ("channels",)}  # type: ignore[arg-type]
    settings = Settings(
        **values.get((), {}),  # type: ignore[arg-type]
        limits=Limits(**values.get(("limits",), {})),  # type: ignore[arg-type]
        retention=RetentionSettings(**values.get(("retention",), {})),  # type: ignore[arg-type]
        auth=AuthSettings(**values.get(("auth",), {})),  # type: ignore[arg-type]
        channels=rules,
    )
    if not call:
        check_listening(settings, sources)
    check_together(settings, sources)
    return Loaded(settings, sources, file, (*warnings, *find_unused(settings, sources)))


class Sources:
    """The sources of a server's settings, to read more than once. The arguments are those of `load`.

    Once a file was read it has to be there at each later reading: without it the defaults would hold.
    """

    def __init__(self, *, file: pathlib.Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> None:
        self._file = file
        self._environ = environ
        self._flags = flags

    def load(self) -> Loaded:
        """Read, check and merge every source. Raises `ConfigurationError`."""
        loaded = load(file=self._file, environ=self._environ, flags=self._flags)
        self._file = loaded.file
        return loaded


def _take(source: Iterator[Given], found: dict[Path, tuple[object, str]], warnings: list[str]) -> None:
    """Add to `found` what a source gives and no stronger source has given."""
    for given in source:
        if given.path not in found:
            found[given.path] = given.checked(), given.source
            continue
        try:
            given.checked()
        except ConfigurationError as error:
            warnings.append(f"{error}; ignored, as {found[given.path][1]} overrides it")


def _from_flags(flags: Mapping[str, object]) -> Iterator[Given]:
    """Yield what the command line sets."""
    for key, value in flags.items():
        if value is None or value == ():
            continue
        name = FLAGS.get(key, "--" + key.replace("_", "-"))
        setting = TABLES[()][key]
        if isinstance(value, str) and setting.base is not str:
            value = setting.from_text(value)
        yield Given((key,), value, name, f"command line: {name}")


def _from_call(call: str, arguments: Mapping[str, object]) -> Iterator[Given]:
    """Yield what a call in Python sets."""
    for key, value in arguments.items():
        if value is not None and value != ():
            name = f"{call}({key}=…)"
            yield Given((key,), value, name, name)
