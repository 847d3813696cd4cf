"""The settings as the text of a TOML file: the example with every key, and what holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from ..settings import DEFAULT_BROKER, SECRETS, RetentionSettings, Settings
from .setting import RULE, TABLES, Path, Setting, dotted, toml

__all__ = ["example_file", "to_toml"]


def example_file() -> str:
    """Return a TOML file with every setting, commented out at its default, each below its explanation.

    Explanations start with `# `, settings with `#` alone: remove that one character to change one.
    """
    lines = [
        "# Settings of Oncecast. Every line below is commented out and shows the default.",
        "# A flag wins over a variable (ONCECAST_PORT, ONCECAST_LIMITS__MESSAGE_BYTES), a variable over this file.",
    ]
    for table, keys in TABLES.items():
        lines += ["", f"[{dotted(table)}]"] if table else [""]
        lines += _example_lines(keys)
    lines += [
        "",
        "# What differs for some channels: an exact name, or a prefix that ends in *. The longest one that fits holds.",
        '#[channels."ticker.*"]',
        *_example_lines(RULE),
    ]
    return "\n".join(lines) + "\n"


_PASSWORD = re.compile(r"(?<=://)[^/]*(?=@)")
_SECRET_OPTION = re.compile(r"([?&]\w*(?:password|token|secret|seed)=)[^&]+")


def to_toml(settings: Settings, sources: Mapping[str, str] | None = None) -> str:
    """Return the settings as a TOML file that `load` reads back to the same. What is `None` is left out.

    With `sources`, as `Loaded` has them, each line ends with a comment that says where its value comes from. As that is
    for people to read, a broker's password is left out.
    """
    lines: list[str] = []
    tables: list[tuple[Path, Struct]] = [
        ((), settings),
        (("limits",), settings.limits),
        (("retention",), settings.retention),
        (("auth",), settings.auth),
        *((("channels", pattern), rule) for pattern, rule in settings.channels.items()),
    ]
    for table, struct in tables:
        lines += ["", f"[{dotted(table)}]"] if table else []
        for key in TABLES.get(table, RULE):
            value = getattr(struct, key)
            if value is None:
                continue
            if (*table, key) in SECRETS:
                lines.append(f"# {key} is set, and not shown")  # no file may hold it, either
            else:
                if key == "broker" and sources is not None:
                    value = _SECRET_OPTION.sub(r"\1***", _PASSWORD.sub("***", value))
                source = "" if sources is None else f"  # {sources.get(dotted((*table, key)), 'default')}"
                lines.append(f"{key} = {toml(value)}{source}")
    return "\n".join(lines) + "\n"


def _example_lines(keys: Mapping[str, Setting]) -> Iterator[str]:
    """Yield each setting's explanation and its default; an example where there is no default."""
    for setting in keys.values():
        value = DEFAULT_BROKER if setting.key == "broker" else setting.default
        if value is None or (value == () and setting.meta.examples):
            value = setting.meta.examples[0] if setting.meta.examples else getattr(RetentionSettings(), setting.key)
        yield f"# {setting.meta.description}"
        if setting.secret:
            continue
        yield f"#{setting.key} = {toml(value)}"
