"""The `ONCECAST_…` variables: which of them are settings, which are mistakes, and which belong to something else.

The environment is shared, so a variable that is not near a setting's name is a warning. Kubernetes and Docker set
variables for a service or a linked container named `oncecast`, `ONCECAST_PORT` among them:
<https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>,
<https://docs.docker.com/engine/network/links/#environment-variables>.

Invariant: a variable that a setting was probably meant by is an error; any other that is not read is in a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...errors import ConfigurationError
from .setting import TABLES, Given, Path, hint, setting_of

__all__ = ["read_environment"]

PREFIX = "ONCECAST_"
# A client's server and its token; a secret that is not shown.
NOT_SETTINGS = frozenset({"ONCECAST_URL", "ONCECAST_TOKEN", "ONCECAST_TLS_KEY_PASSWORD"})
NAMED = 3  # how many variables a warning names before it counts the rest

_NAMES: Mapping[str, Path] = {
    PREFIX + "__".join((*table, key)).upper(): (*table, key) for table, keys in TABLES.items() for key in keys
}
_LINK = re.compile(
    PREFIX + r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR|START|END))?)"
    rf"|{PREFIX}ENV_\w+",
    re.ASCII,
)
_LINK_PORT = re.compile(PREFIX + r"(\w+_)?PORT", re.ASCII)
_LINK_PORT_VALUE = re.compile(r"(tcp|udp|sctp)://", re.ASCII)


def read_environment(environ: Mapping[str, str], warnings: list[str]) -> Iterator[Given]:
    """Yield what the variables set, and add a line to `warnings` for each kind that is not used.

    Raises `ConfigurationError` for a name that is nearly a setting's.
    """
    links: list[str] = []
    empty: list[str] = []
    foreign: list[str] = []
    for name in sorted(environ):
        text = environ[name].strip()
        if not name.upper().startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        if _is_link(name, text):
            links.append(name)
        elif name not in _NAMES:
            if near := _near(name):
                raise ConfigurationError(f"environment: {name} is not a setting{near}")
            foreign.append(name + _hint_of(name))
        elif not text:
            empty.append(name)
        else:
            yield _given(name, text)
    if links:
        warnings.append(
            f"environment: {_listed(links)}: ignored, as Kubernetes or Docker sets that for a service named oncecast; "
            "enableServiceLinks: false in the pod's specification stops it"
        )
    if empty:
        warnings.append(f"environment: {_listed(empty)}: ignored, as there is no value")
    if foreign:
        warnings.append(f"environment: {_listed(foreign)}: ignored, as no setting has such a name")


def _given(name: str, text: str) -> Given:
    path = _NAMES[name]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise ConfigurationError(f"environment: {name} has quotes around its value: remove them")  # Docker's --env-file
    return Given(path, setting_of(path).from_text(text), name, f"environment: {name}")


def _is_link(name: str, text: str) -> bool:
    """Say whether Kubernetes or Docker has set the variable to describe another service."""
    if _LINK.fullmatch(name):
        return True
    if name == f"{PREFIX}NAME":
        return text.startswith("/")
    return _LINK_PORT.fullmatch(name) is not None and _LINK_PORT_VALUE.match(text) is not None


def _near(name: str) -> str:
    """Return the end of an error's line where a setting was probably meant, else nothing."""
    key = name.upper().removeprefix(PREFIX)
    if key.startswith("CHANNELS__"):
        return ": channels have theirs in the file only"
    known = {other.removeprefix(PREFIX): other for other in _NAMES}
    if key in known:
        return f"; write it in capitals, {known[key]}"
    for short, full in known.items():
        if short.endswith(f"__{key}"):
            return f"; did you mean {full}?"
    most = 2 if len(key) > 6 else 1
    letters = {*key}
    # The others are further away: by their length, or as more of their letters are not in it.
    close = [short for short in known if abs(len(short) - len(key)) <= most >= len({*short} - letters)]
    distance, nearest = min(((_distance(key, short, most), short) for short in close), default=(most + 1, ""))
    if distance <= most:
        return f"; did you mean {known[nearest]}?"
    if key.partition("__")[0] in {table[0].upper() for table in TABLES if table} and "__" in key:
        return hint(key, known, PREFIX + "{}") or f": see `oncecast config init -` for the keys of {key.split('__')[0]}"
    return ""


def _hint_of(name: str) -> str:
    near = hint(name.removeprefix(PREFIX), [known.removeprefix(PREFIX) for known in _NAMES], PREFIX + "{}")
    return f" ({near.removeprefix('; ')})" if near else ""


def _distance(left: str, right: str, most: int) -> int:
    """Return how many characters to change, insert, remove or swap with the next: optimal string alignment.

    Past `most` it is not reckoned further.
    """
    rows = [list(range(len(right) + 1))]
    for i, a in enumerate(left, 1):
        row = [i]
        for j, b in enumerate(right, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        rows.append(row)
    return rows[-1][-1]


def _listed(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
