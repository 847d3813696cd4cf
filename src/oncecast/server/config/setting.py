"""One setting as it was declared: what it may be, how its text is read, and the error for a wrong value.

Invariant: whatever value a source has, `Setting.check` returns it as the declared type or raises a `ConfigurationError`
of one line; no number and no text makes it fail otherwise.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct

from ...errors import ConfigurationError
from ...policy import hosts
from ...policy.authority import parse_origin
from ...policy.forwarded import parse_network
from ..settings import SECRETS, AuthSettings, ChannelRule, Limits, RetentionSettings, Settings

__all__ = ["RULE", "TABLES", "Given", "Path", "Setting", "dotted", "hint", "merged_meta", "setting_of", "toml"]

FILES = frozenset({"tls_cert", "tls_key"})  # lists, of which most have one entry
SHOWN_CHARS = 60  # how much of a wrong value an error repeats

Path = tuple[str, ...]  # ("port",), ("limits", "message_bytes"), ("channels", "chat.*", "lag")

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")  # a surrogate stands for a byte that is not UTF-8


@dataclass(frozen=True, slots=True)
class Given:
    """A value that a source gives to a setting, not checked yet.

    `source` is what `config show` prints beside the value, `where` what an error begins with.
    """

    path: Path
    value: object
    source: str
    where: str

    def checked(self) -> object:
        """Return the value as the setting's type. Raises `ConfigurationError`."""
        return setting_of(self.path).check(self.value, self.where)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, as it was declared."""

    key: str
    type: Any  # what msgspec converts to, with its Meta
    base: Any  # the same without Meta and None: int, float, bool, str, tuple or a Literal
    default: object
    meta: Meta
    word: str | None = None  # one that may stand for a number
    secret: bool = False  # no error and no command shows it

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
        """Read the text of a variable or a flag: true and false in the usual words, lists with commas."""
        text = text.strip()
        if self.word is not None and text.lower() == self.word:
            return self.word
        if self.base is bool:
            return _WORDS.get(text.lower(), text)
        if get_origin(self.base) is tuple:
            return [part.strip() for part in text.split(",") if part.strip()]
        if self.base in (int, float) and text.isascii():
            try:
                return self.base(text)
            except ValueError:
                return text
        return text

    def check(self, value: object, where: str) -> object:
        """Return the value as its type, or raise `ConfigurationError` that begins with `where`."""
        if self.key in FILES and isinstance(value, str):
            value = [value]  # one is a list of one
        try:
            if value == "" or (isinstance(value, float) and not math.isfinite(value)):
                raise msgspec.ValidationError  # NaN is neither below nor above a bound
            checked: object = msgspec.convert(value, self.type)
        except (msgspec.ValidationError, UnicodeEncodeError):  # a variable's bytes that are no UTF-8 come as surrogates
            raise ConfigurationError(f"{where} must be {self.shape}, not {self._shown(value)}") from None
        for text in (checked,) if isinstance(checked, str) else checked if isinstance(checked, tuple) else ():
            if _NO_TEXT.search(text):
                raise ConfigurationError(f"{where} must be UTF-8 without NUL, not {self._shown(text)}")
        if self.key == "host":
            _check_host(str(checked), where)
        if self.key == "hosts":
            return tuple(_check_pattern(pattern, where) for pattern in checked)  # type: ignore[attr-defined]
        if self.key == "trusted_proxies":
            for network in checked:  # type: ignore[attr-defined]
                _check_network(network, where)
        if self.key == "origins":
            return tuple(_check_origin(origin, where) for origin in checked)  # type: ignore[attr-defined]
        return checked

    def _shown(self, value: object) -> str:
        return "what was given" if self.secret else _shown(value)


def setting_of(path: Path) -> Setting:
    """Return the setting of a path whose key is known."""
    return TABLES.get(path[:-1], RULE)[path[-1]]


def _check_host(text: str, where: str) -> None:
    """Refuse a name that no resolver could be asked for. Its encoder raises another error than the resolver."""
    try:
        text.encode("idna")  # RFC 5890 §2.3.1: a label has 1 to 63 bytes
    except UnicodeError:
        raise ConfigurationError(f"{where} must be an address or a host's name, not {_shown(text)}") from None


def _check_pattern(text: str, where: str) -> str:
    """Return a pattern of hosts in its one spelling."""
    try:
        return hosts.check_pattern(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_network(text: str, where: str) -> None:
    """Refuse what is no network."""
    try:
        parse_network(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


def _check_origin(text: str, where: str) -> str:
    """Return an origin as a browser writes it: lower case, no default port (RFC 6454 §6.2)."""
    if text == "*":
        return text
    origin = parse_origin(text)
    if origin is None:
        raise ConfigurationError(
            f'{where}: {_shown(text)} is not an origin: write scheme://host[:port] with no path, or "*"'
        )
    return str(origin)


# Declarations ----------------------------------------------------------------------------------------------------


def _declared(struct: type[Struct]) -> dict[str, Setting]:
    """Return a struct's settings by key, in order, without the tables inside it."""
    settings = {}
    for info in msgspec.structs.fields(struct):
        if get_origin(info.type) is Annotated:
            base, *metas = get_args(info.type)
            meta = merged_meta(metas)
            choices = [arg for arg in get_args(base) if arg is not type(None)]
            if type(None) in get_args(base):
                base = choices[0]
            given: Any = Annotated[base, meta]
            if choices and get_origin(choices[0]) is Annotated:  # a number with its bounds, and perhaps a word for one
                base, *bounds = get_args(choices[0])
                meta = merged_meta([*bounds, meta])
            word = get_args(choices[1])[0] if len(choices) > 1 and get_origin(choices[1]) is Literal else None
            secret = any(path[-1] == info.name for path in SECRETS)
            settings[info.name] = Setting(info.name, given, base, info.default, meta, word, secret)
    return settings


def merged_meta(metas: Iterable[Meta]) -> Meta:
    """Return what all of these say together, as msgspec reads nested `Annotated`: a later one wins."""
    names = ("ge", "le", "description", "examples")
    return Meta(**{name: value for meta in metas for name in names if (value := getattr(meta, name)) is not None})


TABLES: Mapping[Path, Mapping[str, Setting]] = {
    (): _declared(Settings),
    ("limits",): _declared(Limits),
    ("retention",): _declared(RetentionSettings),
    ("auth",): _declared(AuthSettings),
}
RULE: Mapping[str, Setting] = _declared(ChannelRule)


# Words -----------------------------------------------------------------------------------------------------------


def toml(value: object) -> str:
    """Write a value as TOML: JSON's strings, numbers and arrays are TOML's too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def dotted(path: Iterable[str]) -> str:
    """Join a path as TOML writes it, with quotes where a part needs them."""
    return ".".join(part if re.fullmatch("[A-Za-z0-9_-]+", part) else toml(part) for part in path)


def hint(name: str, known: Iterable[str], form: str = "{}") -> str:
    """Return `; did you mean …?` with the known name that is closest, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {form.format(close[0])}?" if close else ""


def _shown(value: object) -> str:
    """Return a value for an error's line: on one line, and not long."""
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to write the longest as text
        return f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # such a number, inside a list
        text = type(value).__name__
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "…"
