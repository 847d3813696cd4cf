"""One setting: what each value is read as, and the error for a wrong one."""

from __future__ import annotations

import json
import math

import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.config import contradictions
from oncecast.server.config.setting import TABLES, setting_of
from tests.server.config.conftest import load, mistake


@pytest.mark.parametrize("text", ["auto", "Auto", "1"])
def test_workers_are_a_number_or_a_word(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """`auto`, or a number, in each source; the error for anything else says what it may be."""
    monkeypatch.setattr(contradictions, "worker_count", lambda workers: 1)
    expected = 1 if text == "1" else "auto"
    assert expected == load(None, {"ONCECAST_WORKERS": text}).settings.workers
    assert expected == load(None, {}, {"workers": text}).settings.workers
    assert expected == load(f"workers = {json.dumps(expected)}").settings.workers
    shape = 'must be an integer from 1 to 256, or "auto", not'
    assert f"environment: ONCECAST_WORKERS {shape} 257" == mistake(None, {"ONCECAST_WORKERS": "257"})
    assert f'command line: --workers {shape} "two"' == mistake(None, {}, {"workers": "two"})
    assert f'oncecast.toml: workers {shape} "1"' == mistake('workers = "1"')


@pytest.mark.parametrize("origin", ["https://a/", "a.example", "http://a:999999", "http://a b", "null"])
def test_mistake_in_origin(origin: str) -> None:
    """An origin that no browser would send is refused, since it would never match."""
    expected = f'command line: --origin: "{origin}" is not an origin: write scheme://host[:port] with no path, or "*"'
    assert expected == mistake(flags={"origins": (origin,)})


def test_mistake_in_flag() -> None:
    """A flag's range is checked like any other."""
    expected = "command line: --port must be an integer from 0 to 65535, not 70000"
    assert expected == mistake(flags={"port": 70000})


HUGE = 10**400
ABSURD = [
    (HUGE, "a number of 401 digits"),
    (-HUGE, "a number of 401 digits"),
    (1 << 40_000, "a number of 12042 digits"),  # Python refuses to write that as text
    ([1 << 40_000], "list"),
    (2**63, "9223372036854775808"),
    (-1, "-1"),
    (1e308, "1e+308"),
    (math.inf, "Infinity"),
    (-math.inf, "-Infinity"),
    (math.nan, "NaN"),
]


@pytest.mark.parametrize("path", [(*table, key) for table, keys in TABLES.items() for key in keys], ids=".".join)
@pytest.mark.parametrize("value, shown", ABSURD, ids=[shown for _, shown in ABSURD])
def test_absurd_values(path: tuple[str, ...], value: object, shown: str) -> None:
    """Every setting refuses every absurd number in one line of bounded length that says what it may be."""
    setting = setting_of(path)
    with pytest.raises(ConfigurationError) as caught:
        setting.check(value, "x:")
    shown = "what was given" if setting.secret else shown
    assert f"x: must be {setting.shape}, not {shown}" == str(caught.value)


@pytest.mark.parametrize("text", ["9" * 401, "1e400", "-1", "nan", "inf", "-inf", "1e308", "9" * 5000])
@pytest.mark.parametrize("key", ["PORT", "WORKERS", "LIMITS__WAIT_SECONDS", "LIMITS__CONNECTIONS"])
def test_absurd_texts(key: str, text: str) -> None:
    """The same as a variable's text."""
    line = mistake(environ={f"ONCECAST_{key}": text})
    assert line.startswith(f"environment: ONCECAST_{key} must be ")
    assert len(line) < 200


@pytest.mark.parametrize("host", ["a" * 64, "a..b", "."])
def test_a_host_that_no_resolver_takes(host: str) -> None:
    """A name that can't be encoded for a resolver is refused with the settings, not when the server binds."""
    assert f"command line: --host must be an address or a host's name, not \"{host[:59]}" in mistake(
        flags={"host": host}
    )


@pytest.mark.parametrize("path", ["a\0b", "a\udcffb"])
def test_text_that_no_file_name_may_be(path: str) -> None:
    """NUL and bytes that are not UTF-8 are refused, as later they would raise something else."""
    assert mistake(flags={"tls_cert": path}).startswith("command line: --tls-cert must be UTF-8 without NUL, not ")


def test_patterns_of_hosts() -> None:
    """A pattern gets its one spelling; what can't be a host is one line that names the source."""
    assert ("example.com", "*.b.example", "*") == load(
        environ={"ONCECAST_HOSTS": "Example.COM,*.b.example,*"}
    ).settings.hosts
    assert mistake('hosts = ["a b"]').startswith("oncecast.toml: hosts: ")
