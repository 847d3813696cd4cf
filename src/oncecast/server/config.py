"""Where settings come from: flags, variables, a TOML file, defaults; and how a mistake in them is named.

The keys themselves stand in `settings.py`; what is checked, said and written here is made from that declaration. To
add a source, yield from it in `load`; where two settings can contradict each other, add a rule to `_check_together`.

Invariant: what `load` returns has been checked, whole; whatever is wrong is one `ConfigurationError` of one line that
names the source and the key. Flags win over `ONCECAST_…` variables, these over a TOML file, the file over defaults.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from ..errors import ConfigurationError, Refusal
from ..message import check_channel
from .cores import worker_count
from .settings import (
    DEFAULT_BROKER,
    MEMORY,
    SQLITE,
    ChannelRule,
    Limits,
    Retention,
    Settings,
    connection_ceiling,
    rule_for,
)

__all__ = [
    "DEFAULT_BROKER",
    "DEFAULT_FILE",
    "ChannelRule",
    "Limits",
    "Loaded",
    "Retention",
    "Settings",
    "connection_ceiling",
    "example_file",
    "load",
    "rule_for",
    "to_toml",
]

DEFAULT_FILE = "oncecast.toml"
PREFIX = "ONCECAST_"
NOT_SETTINGS = frozenset({"ONCECAST_URL"})  # where the client commands find their server
SHOWN_CHARS = 60  # how much of a wrong value an error repeats


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked settings, the file that was read if any, and where each value came from.

    `sources` has the dotted key (`port`, `limits.message_bytes`, `channels."chat.*".lag`) and `default`, the file's
    name, the variable's or the flag's.
    """

    settings: Settings
    sources: dict[str, str]
    file: Path | None


# Behaviour -------------------------------------------------------------------------------------------------------


def load(*, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Loaded:
    """Read, check and merge every source.

    `file` must exist if it is given; without one, `oncecast.toml` in the working directory is read if it is there.
    `flags` has top-level keys as in `Settings`; `None` and `()` mean that the flag was not given. Raises
    `ConfigurationError`.
    """
    if file is None and Path(DEFAULT_FILE).exists():  # a directory of that name is a mistake to be told of
        file = Path(DEFAULT_FILE)
    found: dict[tuple[str, ...], tuple[object, str]] = {}
    if file is not None:
        found.update(_from_file(file))
    found.update(_from_environ(environ))
    found.update(_from_flags(flags))
    # To try things out leaves nothing behind.
    dev, _ = found.get(("dev",), (False, ""))
    found.setdefault(("broker",), (MEMORY if dev else DEFAULT_BROKER, "default"))

    values: dict[tuple[str, ...], dict[str, object]] = {}
    sources = {_dotted((*table, key)): "default" for table, keys in _TABLES.items() for key in keys}
    for (*table, key), (value, source) in found.items():
        values.setdefault(tuple(table), {})[key] = value
        sources[_dotted((*table, key))] = source
    rules = {table[1]: ChannelRule(**keys) for table, keys in values.items() if table[:1] == ("channels",)}  # type: ignore[arg-type]
    settings = Settings(
        **values.get((), {}),  # type: ignore[arg-type]
        limits=Limits(**values.get(("limits",), {})),  # type: ignore[arg-type]
        retention=Retention(**values.get(("retention",), {})),  # type: ignore[arg-type]
        channels=rules,
    )
    _check_together(settings, sources)
    return Loaded(settings, sources, file)


def example_file() -> str:
    """Return a TOML file with every setting, commented out at its default, each below its explanation.

    Explanations start with `# `, settings with `#` alone: take that one character away to change one.
    """
    lines = [
        "# Settings of Oncecast. Every line below is commented out and shows the default.",
        "# A flag wins over a variable (ONCECAST_PORT, ONCECAST_LIMITS__MESSAGE_BYTES), a variable over this file.",
    ]
    for table, keys in _TABLES.items():
        lines += ["", f"[{_dotted(table)}]"] if table else [""]
        lines += _example_lines(keys)
    lines += [
        "",
        "# What differs for some channels: an exact name, or a prefix that ends in *. The longest one that fits holds.",
        '#[channels."ticker.*"]',
        *_example_lines(_RULE),
    ]
    return "\n".join(lines) + "\n"


def to_toml(settings: Settings, sources: Mapping[str, str] | None = None) -> str:
    """Return the settings as a TOML file that `load` reads back to the same. What is `None` is left out.

    With `sources`, as `Loaded` has them, each line ends with a comment that says where its value comes from.
    """
    lines: list[str] = []
    tables: list[tuple[tuple[str, ...], Struct]] = [
        ((), settings),
        (("limits",), settings.limits),
        (("retention",), settings.retention),
        *((("channels", pattern), rule) for pattern, rule in settings.channels.items()),
    ]
    for table, struct in tables:
        lines += ["", f"[{_dotted(table)}]"] if table else []
        for key in _TABLES.get(table, _RULE):
            value = getattr(struct, key)
            if value is not None:
                source = "" if sources is None else f"  # {sources.get(_dotted((*table, key)), 'default')}"
                lines.append(f"{key} = {_toml(value)}{source}")
    return "\n".join(lines) + "\n"


# Sources ---------------------------------------------------------------------------------------------------------

Found = Iterator[tuple[tuple[str, ...], tuple[object, str]]]


def _from_file(file: Path) -> Found:
    """Yield what the file sets. Every table and key in it must be known."""
    try:
        content = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{file}: is not TOML: {' '.join(str(error).split())}") from None
    names = [table[0] for table in _TABLES if table] + ["channels"]
    for key, value in content.items():
        if key in names:
            if not isinstance(value, dict):
                raise ConfigurationError(f"{file}: [{key}] is a table: put its settings below a line [{key}]")
            yield from _from_channels(file, value) if key == "channels" else _from_table(file, (key,), value)
        elif isinstance(value, dict):
            hint = _hint(key, names, "[{}]")
            raise ConfigurationError(f"{file}: [{_dotted([key])}] is not a table of settings{hint}")
        else:
            yield from _from_table(file, (), {key: value})


def _from_table(file: Path, table: tuple[str, ...], values: Mapping[str, object]) -> Found:
    """Yield one table's settings, checked."""
    keys = _TABLES.get(table, _RULE)
    label = f"{file}: [{_dotted(table)}]" if table else f"{file}:"
    for key, value in values.items():
        if key not in keys:
            homes = [_dotted(other) for other, settings in _TABLES.items() if other and key in settings]
            hint = f"; did you mean the one in [{homes[0]}]?" if homes else _hint(key, keys)
            raise ConfigurationError(f"{label} {_dotted([key])} is not a setting{hint}")
        yield (*table, key), (keys[key].check(value, f"{label} {key}"), str(file))


def _from_channels(file: Path, rules: Mapping[str, object]) -> Found:
    """Yield the settings of each `[channels."<pattern>"]`."""
    for pattern, values in rules.items():
        where = f"{file}: [{_dotted(('channels', pattern))}]"
        if not isinstance(values, dict):
            raise ConfigurationError(f'{where} is a table: write [channels."name"] above its settings')
        try:
            if pattern != "*":
                check_channel(pattern[:-1] if pattern.endswith("*") else pattern)
        except Refusal:
            raise ConfigurationError(f"{where} is neither a channel name nor a prefix that ends in *") from None
        # A rule with nothing in it still counts: it takes the channel out of a prefix's rule.
        yield from _from_table(file, ("channels", pattern), values or {"lag": "resume"})


def _from_environ(environ: Mapping[str, str]) -> Found:
    """Yield what the variables set. Every variable with our prefix must be known."""
    names = {
        PREFIX + "__".join((*table, key)).upper(): (*table, key) for table, keys in _TABLES.items() for key in keys
    }
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if name.startswith(f"{PREFIX}CHANNELS__"):
            raise ConfigurationError(f"environment: {name} is not a setting: channels have theirs in the file only")
        if name not in names:
            # Without the prefix, which would make every name look near.
            hint = _hint(name.removeprefix(PREFIX), [known.removeprefix(PREFIX) for known in names], PREFIX + "{}")
            raise ConfigurationError(f"environment: {name} is not a setting{hint}")
        *table, key = names[name]
        setting = _TABLES[tuple(table)][key]
        yield names[name], (setting.check(setting.from_text(environ[name]), f"environment: {name}"), name)


def _from_flags(flags: Mapping[str, object]) -> Found:
    """Yield what the command line sets."""
    for key, value in flags.items():
        if value is None or value == ():
            continue
        name = "--origin" if key == "origins" else "--" + key.replace("_", "-")
        setting = _TABLES[()][key]
        if setting.word is not None and isinstance(value, str):
            value = setting.from_text(value)
        yield (key,), (setting.check(value, f"command line: {name}"), name)


# Checks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Setting:
    """One key, as it was declared."""

    key: str
    type: Any  # what msgspec converts to, with its Meta
    base: Any  # the same without Meta and None: int, float, bool, str, tuple or a Literal
    default: object
    meta: Meta
    word: str | None = None  # one that may stand for a number

    @property
    def shape(self) -> str:
        """What a value must be, in words."""
        if self.word is not None:
            return f'an integer from {self.meta.ge} to {self.meta.le}, or "{self.word}"'
        if get_origin(self.base) is Literal:
            return "one of " + ", ".join(f'"{choice}"' for choice in get_args(self.base))
        if self.base in (int, float):
            noun = "an integer" if self.base is int else "a number"
            return f"{noun} from {self.meta.ge} to {self.meta.le}"
        return {bool: "true or false", str: "a string that is not empty"}.get(self.base, "a list of strings")

    def from_text(self, text: str) -> object:
        """Read a variable's text: yes and no in the usual words, lists with commas."""
        if self.word is not None and text.strip().lower() == self.word:
            return self.word
        if self.base is bool:
            return _WORDS.get(text.strip().lower(), text)
        if get_origin(self.base) is tuple:
            return [part.strip() for part in text.split(",") if part.strip()]
        if self.base in (int, float):
            try:
                return self.base(text)
            except ValueError:
                return text
        return text

    def check(self, value: object, where: str) -> object:
        """Return the value as its type, or raise `ConfigurationError` that begins with `where`."""
        try:
            if value == "" or (isinstance(value, float) and not math.isfinite(value)):
                raise msgspec.ValidationError  # NaN is neither below nor above a bound
            checked: object = msgspec.convert(value, self.type)
        except msgspec.ValidationError:
            raise ConfigurationError(f"{where} must be {self.shape}, not {_shown(value)}") from None
        if self.key == "origins":
            return tuple(_check_origin(origin, where) for origin in checked)  # type: ignore[attr-defined]
        return checked


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_LATER_BROKERS = ("redis", "kafka", "amqp", "nats")


def _check_origin(text: str, where: str) -> str:
    """Return an origin as a browser writes it: lower case, no default port (RFC 6454 §6.2)."""
    if text == "*":
        return text
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise ConfigurationError(
            f'{where}: {_shown(text)} is not an origin: write scheme://host[:port] with no path, or "*"'
        )
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for settings that are each well formed but can't hold together."""

    def fail(key: str, text: str) -> None:
        source = sources[key]
        # A variable or a flag names its key; a file does not.
        raise ConfigurationError(
            f"{source}: {text}" if source.startswith(("--", PREFIX)) else f"{source}: {key}: {text}"
        )

    for given, missing in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if getattr(settings, given) is not None and getattr(settings, missing) is None:
            fail(given, f"TLS needs tls_cert and tls_key, and {missing} is not set: set both or neither")
    if not (settings.public or settings.dev or _is_loopback(settings.host)):
        every = "binding to all interfaces" if settings.host in ("0.0.0.0", "::") else f"binding to {settings.host}"  # noqa: S104
        fail("host", f"{every} lets anyone publish who can reach it; give --public if that is meant")
    scheme = settings.broker.partition(":")[0].lower()
    if scheme in _LATER_BROKERS:
        # Only the scheme is repeated: a broker's URL can hold a password.
        fail("broker", f"{scheme}:// is not in this version; use {DEFAULT_BROKER} or {MEMORY}")
    if settings.broker != MEMORY and not (settings.broker.startswith(SQLITE) and settings.broker != SQLITE):
        later = ", ".join(f"{name}://" for name in _LATER_BROKERS)
        fail(
            "broker", f"not a broker URL that is known; use {SQLITE}FILE or {MEMORY} ({later} are not in this version)"
        )
    if settings.broker == MEMORY and (count := worker_count(settings.workers)) > 1:
        fail("workers", f"{count} processes can't share {MEMORY}; use {DEFAULT_BROKER}, or workers = 1")


def _is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the host. A name other than localhost could be anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# Helpers ---------------------------------------------------------------------------------------------------------


def _declared(struct: type[Struct]) -> dict[str, _Setting]:
    """Return a struct's settings by key, in order, without the tables inside it."""
    settings = {}
    for info in msgspec.structs.fields(struct):
        if get_origin(info.type) is Annotated:
            base, meta = get_args(info.type)
            choices = [arg for arg in get_args(base) if arg is not type(None)]
            if type(None) in get_args(base):
                base = choices[0]
            given: Any = Annotated[base, meta]
            if choices and get_origin(choices[0]) is Annotated:  # a number with its bounds, and perhaps a word for one
                base, bounds = get_args(choices[0])
                meta = Meta(ge=bounds.ge, le=bounds.le, description=meta.description)
            word = get_args(choices[1])[0] if len(choices) > 1 and get_origin(choices[1]) is Literal else None
            settings[info.name] = _Setting(info.name, given, base, info.default, meta, word)
    return settings


_TABLES: dict[tuple[str, ...], dict[str, _Setting]] = {
    (): _declared(Settings),
    ("limits",): _declared(Limits),
    ("retention",): _declared(Retention),
}
_RULE = _declared(ChannelRule)


def _example_lines(keys: Mapping[str, _Setting]) -> Iterator[str]:
    """Yield each setting's explanation and its default; an example where there is no default."""
    for setting in keys.values():
        value = DEFAULT_BROKER if setting.key == "broker" else setting.default
        if value is None:
            value = setting.meta.examples[0] if setting.meta.examples else getattr(Retention(), setting.key)
        yield f"# {setting.meta.description}"
        yield f"#{setting.key} = {_toml(value)}"


def _toml(value: object) -> str:
    """Write a value as TOML: JSON's strings, numbers and arrays are TOML's too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _dotted(path: Iterable[str]) -> str:
    """Join a path as TOML writes it, with quotes where a part needs them."""
    return ".".join(part if re.fullmatch("[A-Za-z0-9_-]+", part) else _toml(part) for part in path)


def _hint(name: str, known: Iterable[str], form: str = "{}") -> str:
    """Return `; did you mean …?` with the known name that is closest, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def _shown(value: object) -> str:
    """Return a value for an error's line: on one line, and not long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
