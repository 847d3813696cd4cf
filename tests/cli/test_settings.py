"""`oncecast config`."""

from __future__ import annotations

import re
from pathlib import Path

from oncecast.server.config import example_file
from oncecast.server.config.file import NEW_FILE
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate
from tests.cli.conftest import (
    call,
    complaint,
)


def test_config_init() -> None:
    """It writes the example, over a file only with --force, and - prints it."""
    assert "Wrote oncecast.toml. Uncomment what you want to change" in call("config", "init").stdout
    assert example_file() == Path("oncecast.toml").read_text() == call("config", "init", "-").stdout
    Path("oncecast.toml").write_text("port = 1")
    expected = "oncecast.toml is there already: give --force to replace it"
    assert expected == complaint(call("config", "init"), 2)
    assert 0 == call("config", "init", "--force").exit_code
    assert example_file() == Path("oncecast.toml").read_text()
    assert "no/x.toml can't be written: No such file or directory" == complaint(call("config", "init", "no/x.toml"), 2)


def test_config_check() -> None:
    """It says where settings come from, or names the mistake."""
    assert "The settings are valid: all are defaults.\n" == call("config", "check").stdout
    Path("oncecast.toml").write_text("port = 1\ndev = true")
    result = call("config", "check", ONCECAST_HOST="localhost")
    expected = "The settings are valid: 2 from oncecast.toml, 1 from ONCECAST_HOST, the rest are defaults.\n"
    assert expected == result.stdout
    expected = "environment: ONCECAST_HOTS is not a setting; did you mean ONCECAST_HOST?"
    assert expected == complaint(call("config", "check", ONCECAST_HOTS="x"), 2)


def test_config_check_of_a_file() -> None:
    """The file is an argument, or --config's, but not two files."""
    Path("a.toml").write_text("port = 1")
    expected = "The settings are valid: 1 from a.toml, the rest are defaults.\n"
    for arguments in (["a.toml"], ["--config", "a.toml"], ["a.toml", "--config", "a.toml"]):
        assert expected == call("config", "check", *arguments).stdout
    expected = "FILE is a.toml and --config is b.toml: give one of them"
    assert expected == complaint(call("config", "check", "a.toml", "--config", "b.toml"), 2)
    assert f"b.toml: cannot be read: No such file or directory; {NEW_FILE}" == complaint(
        call("config", "check", "b.toml"), 2
    )


def test_config_check_of_certificates(tmp_path: Path) -> None:
    """It reads them, prints the names and the end of each, and warns; a pair that can't serve is a mistake."""
    made = with_certificate(Settings(dev=True, tls=True), {"XDG_STATE_HOME": str(tmp_path)})
    cert, key = Path(made.tls_cert[0]), Path(made.tls_key[0])
    Path("oncecast.toml").write_text(f'tls_cert = "{cert}"\ntls_key = "{key}"')
    result = call("config", "check")
    assert re.search(
        rf"(?m)^The certificate {cert} is for localhost, 127\.0\.0\.1, ::1, until 20\d\d-\d\d-\d\d \(396 days\)\.$",
        result.stdout,
    )
    key.chmod(0o644)
    result = call("config", "check")
    assert (0, True) == (result.exit_code, f"every user of this machine may open {key} (mode 0644)" in result.stderr)
    key.unlink()
    expected = f"tls_key: {key}: No such file or directory; give the certificate's private key in PEM"
    assert call("config", "check").stderr.endswith(f"{expected}\n")


def test_config_show() -> None:
    """It prints what holds, as TOML, with the source of each."""
    Path("oncecast.toml").write_text('[channels."a.*"]\nmessages = 1\n')
    lines = call("config", "show", ONCECAST_PORT="9").stdout.splitlines()
    assert 'host = "127.0.0.1"  # default' in lines
    assert "port = 9  # ONCECAST_PORT" in lines
    assert ['[channels."a.*"]', "messages = 1  # oncecast.toml", 'lag = "resume"  # default'] == lines[-3:]


RULES = """
[channels."user.{sub}"]
subscribe = "token"
"""


def test_config_explain() -> None:
    """It prints the table, the verdict for the caller, and what the table says."""
    Path("oncecast.toml").write_text(RULES)
    assert (
        """channel    user.ann
rule       [channels."user.{sub}"] in oncecast.toml
asked by   anybody: no token and no key was given

subscribe  refused with 401 unauthorized: Only a token may subscribe to user.ann: send one.
           the rule says "token": the token whose sub is "ann", unless it names other channels only, or a server's key

publish    refused with 403 forbidden: Only a server's key may publish to user.ann.
           the rule does not name it, which means "server": a server's key
"""
        == call("config", "explain", "user.ann").stdout
    )
    unmatched = call("config", "explain", "other").stdout.splitlines()
    expected = "rule       none: no table [channels.…] of oncecast.toml fits, so only a server's key may do anything"
    assert expected == unmatched[1]
    assert 2 == call("config", "explain", "a b").exit_code


def test_config_explain_without_rules() -> None:
    """It says that no access rules are set."""
    lines = call("config", "explain", "x").stdout.splitlines()
    assert "rule       none is needed: no table of a channel names subscribe or publish" == lines[1]
    assert ["allowed: without access rules everybody may"] * 2 == [line[11:] for line in lines[2:]]
