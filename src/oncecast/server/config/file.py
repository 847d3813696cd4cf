"""The settings file: TOML, read whole. Every table and key in it must be known.

Invariant: whatever the file holds, what is wrong with it is one `ConfigurationError` that names the file.
"""

from __future__ import annotations

import pathlib
import tomllib
from collections.abc import Iterator, Mapping

from ...errors import ConfigurationError
from ...policy.channels import is_pattern
from ..files import read_whole
from ..settings import SECRETS
from .setting import RULE, TABLES, Given, Path, dotted, hint

__all__ = ["read_file"]

PATTERN_HELP = (
    'write a name, a prefix that ends in *, or either with {sub} for a part between dots, as in "user.{sub}.*"'
)
NEW_FILE = "name one that is there, or write one with `oncecast config init`"
FILE_BYTES = 1024 * 1024  # several thousand rules; also where a device is named in error


def read_file(file: pathlib.Path) -> Iterator[Given]:
    """Yield what the file sets, in its order. Raises `ConfigurationError`."""
    names = [table[0] for table in TABLES if table] + ["channels"]
    for key, value in _parse(file).items():
        if key in names:
            if not isinstance(value, dict):
                raise ConfigurationError(f"{file}: [{key}] is a table: put its settings below a line [{key}]")
            yield from _from_channels(file, value) if key == "channels" else _from_table(file, (key,), value)
        elif isinstance(value, dict):
            near = hint(key, names, "[{}]")
            raise ConfigurationError(f"{file}: [{dotted([key])}] is not a table of settings{near}")
        else:
            yield from _from_table(file, (), {key: value})


def _parse(file: pathlib.Path) -> dict[str, object]:
    try:
        content = read_whole(file, FILE_BYTES + 1)
        if len(content) > FILE_BYTES:
            raise ConfigurationError(f"{file}: is larger than {FILE_BYTES} bytes: is it a settings file?")
        return tomllib.loads(content.decode())
    except OSError as error:
        cure = f"; {NEW_FILE}" if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}{cure}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: is not TOML: its arrays or tables are nested too deep") from None
    except ValueError as error:  # UnicodeDecodeError, TOMLDecodeError, and an integer of over 4,300 digits
        raise ConfigurationError(f"{file}: is not TOML: {' '.join(str(error).split())}") from None


def _from_table(file: pathlib.Path, table: Path, values: Mapping[str, object]) -> Iterator[Given]:
    """Yield one table's settings."""
    keys = TABLES.get(table, RULE)
    label = f"{file}: [{dotted(table)}]" if table else f"{file}:"
    for key, value in values.items():
        if key not in keys:
            homes = [dotted(other) for other, settings in TABLES.items() if other and key in settings]
            near = f"; did you mean the one in [{homes[0]}]?" if homes else hint(key, keys)
            if keys is RULE and isinstance(value, dict):  # TOML takes [channels.chat.lobby] for a table in a table
                near = ': write quotes around a name with dots, as in [channels."chat.lobby"]'
            raise ConfigurationError(f"{label} {dotted([key])} is not a setting{near}")
        if (*table, key) in SECRETS:
            raise ConfigurationError(
                f"{label} {key}: a secret does not belong into the settings: put it into a file of its own and name "
                f"that in {key}_file, or into the variable ONCECAST_{'__'.join((*table, key)).upper()}"
            )
        yield Given((*table, key), value, str(file), f"{label} {key}")


def _from_channels(file: pathlib.Path, rules: Mapping[str, object]) -> Iterator[Given]:
    """Yield the settings of each `[channels."<pattern>"]`."""
    for pattern, values in rules.items():
        where = f"{file}: [{dotted(('channels', pattern))}]"
        if not isinstance(values, dict):
            raise ConfigurationError(f'{where} is a table: write [channels."name"] above its settings')
        if not is_pattern(pattern):
            raise ConfigurationError(f"{where} is no pattern of channels: {PATTERN_HELP}")
        # An empty rule counts too: it takes the channel out of a prefix's rule.
        yield from _from_table(file, ("channels", pattern), values or {"lag": "resume"})
