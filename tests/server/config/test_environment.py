"""The variables: which are settings, which are mistakes, and which are not ours."""

from __future__ import annotations

import pytest

from tests.server.config.conftest import load, mistake


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("ONCECAST_PROT", "1", "ONCECAST_PROT is not a setting; did you mean ONCECAST_PORT?"),
        (
            "ONCECAST_LIMITS__MESSAGE_BYTE",
            "1",
            "ONCECAST_LIMITS__MESSAGE_BYTE is not a setting; did you mean ONCECAST_LIMITS__MESSAGE_BYTES?",
        ),
        (
            "ONCECAST_LIMITS_MESSAGE_BYTES",
            "1",
            "ONCECAST_LIMITS_MESSAGE_BYTES is not a setting; did you mean ONCECAST_LIMITS__MESSAGE_BYTES?",
        ),
        (
            "ONCECAST_MESSAGE_BYTES",
            "1",
            "ONCECAST_MESSAGE_BYTES is not a setting; did you mean ONCECAST_LIMITS__MESSAGE_BYTES?",
        ),
        (
            "ONCECAST_LIMITS__HEARTBEAT",
            "1",
            "ONCECAST_LIMITS__HEARTBEAT is not a setting; did you mean ONCECAST_LIMITS__HEARTBEAT_SECONDS?",
        ),
        (
            "ONCECAST_RETENTION__QQQQQQQQQQQQQQQQQQQQQQ",
            "1",
            "ONCECAST_RETENTION__QQQQQQQQQQQQQQQQQQQQQQ is not a setting: see `oncecast config init -` for the keys of"
            " RETENTION",
        ),
        ("oncecast_port", "1", "oncecast_port is not a setting; write it in capitals, ONCECAST_PORT"),
        ("ONCECAST_HOST", '"localhost"', "ONCECAST_HOST has quotes around its value: remove them"),
        (
            "ONCECAST_CHANNELS__NEWS__LAG",
            "latest",
            "ONCECAST_CHANNELS__NEWS__LAG is not a setting: channels have theirs in the file only",
        ),
        ("ONCECAST_PORT", "eighty", 'ONCECAST_PORT must be an integer from 0 to 65535, not "eighty"'),
        ("ONCECAST_PORT", "８０", 'ONCECAST_PORT must be an integer from 0 to 65535, not "\\uff18\\uff10"'),
        ("ONCECAST_DEV", "maybe", 'ONCECAST_DEV must be true or false, not "maybe"'),
        (
            "ONCECAST_LIMITS__HEAD_SECONDS",
            "nan",
            "ONCECAST_LIMITS__HEAD_SECONDS must be a number from 0.1 to 600, not NaN",
        ),
    ],
)
def test_mistake_in_environment(name: str, value: str, expected: str) -> None:
    """Each mistake in a variable is one line that names it."""
    assert f"environment: {expected}" == mistake(environ={name: value})


@pytest.mark.parametrize(
    "text, expected", [("yes", True), ("On", True), ("1", True), ("TRUE", True), ("0", False), ("no", False)]
)
def test_words_for_true_and_false(text: str, expected: bool) -> None:
    """Variables take the usual words for true and false."""
    assert expected == load(environ={"ONCECAST_DEV": text}).settings.dev


def test_lists_in_variables() -> None:
    """A variable holds a list with commas; origins become what a browser sends."""
    loaded = load(environ={"ONCECAST_ORIGINS": "https://A.example:443, http://b:8080,http://[::1]:80,*, app://x"})
    assert ("https://a.example", "http://b:8080", "http://[::1]", "*", "app://x") == loaded.settings.origins


KUBERNETES = {
    "ONCECAST_PORT": "tcp://10.0.0.1:8000",
    "ONCECAST_PORT_8000_TCP": "tcp://10.0.0.1:8000",
    "ONCECAST_PORT_8000_TCP_ADDR": "10.0.0.1",
    "ONCECAST_PORT_8000_TCP_PORT": "8000",
    "ONCECAST_PORT_8000_TCP_PROTO": "tcp",
    "ONCECAST_SERVICE_HOST": "10.0.0.1",
    "ONCECAST_SERVICE_PORT": "8000",
    "ONCECAST_SERVICE_PORT_HTTP": "8000",
    "ONCECAST_DEV_SERVICE_HOST": "10.0.0.2",  # of a service named oncecast-dev
    "ONCECAST_DEV_PORT": "udp://10.0.0.2:53",
}
DOCKER = {"ONCECAST_NAME": "/web/oncecast", "ONCECAST_ENV_PATH": "/bin", "ONCECAST_PORT": "tcp://172.17.0.5:8000"}


@pytest.mark.parametrize(
    "environ, listed",
    [
        (KUBERNETES, "ONCECAST_DEV_PORT, ONCECAST_DEV_SERVICE_HOST, ONCECAST_PORT and 7 more"),
        (DOCKER, "ONCECAST_ENV_PATH, ONCECAST_NAME, ONCECAST_PORT"),
    ],
)
def test_what_another_service_is_described_by(environ: dict[str, str], listed: str) -> None:
    """Variables of Kubernetes and Docker for a service named oncecast are ignored, with one warning for all."""
    loaded = load(environ={**environ, "ONCECAST_HOST": "localhost"})
    assert (8000, "localhost", "default") == (loaded.settings.port, loaded.settings.host, loaded.sources["port"])
    (warning,) = loaded.warnings
    assert warning.startswith(f"environment: {listed}: ignored, as Kubernetes or Docker sets that")


def test_a_port_that_kubernetes_sets_gives_way_to_the_file() -> None:
    """The port of the file holds where the variable is Kubernetes'."""
    loaded = load("port = 9", environ=KUBERNETES)
    assert (9, "oncecast.toml") == (loaded.settings.port, loaded.sources["port"])


def test_variables_of_others_and_without_a_value() -> None:
    """A name that is near no setting's, and a variable without a value, are ignored with a warning each kind."""
    loaded = load(
        'origins = ["https://a"]',
        environ={
            "ONCECAST_IMAGE": "x",
            "ONCECAST_WORKER_NUMBER": "3",
            "ONCECAST_NAME": "x",
            "ONCECAST_HOST": " ",
            "ONCECAST_ORIGINS": "",
        },
    )
    assert ("127.0.0.1", ("https://a",)) == (loaded.settings.host, loaded.settings.origins)
    assert (
        "environment: ONCECAST_HOST, ONCECAST_ORIGINS: ignored, as there is no value",
        "environment: ONCECAST_IMAGE, ONCECAST_NAME, ONCECAST_WORKER_NUMBER (did you mean ONCECAST_WORKERS?): ignored, "
        "as no setting has such a name",
    ) == loaded.warnings


def test_whitespace_around_a_value() -> None:
    """Whitespace around a value, as at the end of a secret's file, is no part of it."""
    environ = {"ONCECAST_PORT": " 9\n", "ONCECAST_TLS_CERT": "c.pem\n", "ONCECAST_TLS_KEY": "\tk.pem"}
    settings = load(environ=environ).settings
    assert (9, ("c.pem",), ("k.pem",)) == (settings.port, settings.tls_cert, settings.tls_key)
