"""The wheel as a person installs it: in an empty environment of each Python of this machine.

Each environment is made without pip and filled by this one's from the lock, which takes seconds. What is tested there
runs in an empty folder and without this checkout on its path.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import oncecast
from tests.package_rig import ROOT, pythons

SECONDS = 120  # for a program that takes one or two
PYTHONS = pythons()
EXTRAS = {
    "redis": "redis://127.0.0.1:1/0",
    "nats": "nats://127.0.0.1:1",
    "rabbitmq": "amqp://127.0.0.1:1/%2F?stream=s",
    "kafka": "kafka://127.0.0.1:1?topic=t",
}
IMPORT_SECONDS = 0.06  # of CPU, more than a bare interpreter
ROUNDS = 9  # of which the quickest counts, as other tests share the machine

EVERY_MODULE = """
import importlib, pkgutil, oncecast
for module in pkgutil.walk_packages(oncecast.__path__, "oncecast."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error.name)
"""
ROUND_TRIP = """
import sys, urllib.request, oncecast
print(urllib.request.urlopen(sys.argv[1] + "/oncecast.js").status, end=" ")
with oncecast.Client(sys.argv[1]) as client:
    client.publish("news", {"t": 1})
    print(next(iter(client.subscribe("news", after="earliest"))).data)
"""
TYPED = """
from typing import assert_type
import oncecast

def first(url: str) -> str:
    with oncecast.Client(url) as client:
        assert_type(client.publish("news", {"t": 1}), oncecast.Ack)
        for message in client.subscribe("news", after="earliest"):
            if isinstance(message, oncecast.ClientMessage):
                return message.id
    raise oncecast.Unreachable(url)

oncecast.Misspelt  # line 13
"""
COST = """
import os, sys
for _ in range(int(sys.argv[2])):
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", sys.argv[1]], os.environ)
    _, status, used = os.wait4(process, 0)
    assert status == 0
    print(used.ru_utime + used.ru_stime)
"""


class Installed:
    """An environment with the wheel: `run` runs its Python, `command` its `oncecast`."""

    def __init__(self, python: Path, wheel: Path, place: Path) -> None:
        self.folder = place / "environment"
        self.python = self.folder / "bin" / "python"
        self.cwd = place / "empty"
        self.cwd.mkdir()
        self.environ = {name: value for name, value in os.environ.items() if not _is_ours(name)}
        checked([python, "-m", "venv", "--without-pip", self.folder], self.environ)
        self.install("--no-compile", "--require-hashes", "--requirement", ROOT / "requirements" / "runtime.lock")
        self.install("--no-deps", wheel)

    def install(self, *what: str | Path) -> str:
        """Install by the pip of the tests; return what it prints."""
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        return checked([*pip, "install", "--quiet", *what], self.environ).stdout

    def run(self, script: str, *arguments: str | Path) -> str:
        """Return what a script prints, in which a warning is an error."""
        return checked([self.python, "-W", "error", "-c", script, *arguments], self.environ, self.cwd).stdout

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        return called([self.folder / "bin" / "oncecast", *arguments], self.environ, self.cwd)


def called(
    command: list[str | Path], environ: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False, timeout=SECONDS)


def checked(
    command: list[str | Path], environ: dict[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that succeeds."""
    ended = called(command, environ, cwd)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    return ended


def _is_ours(name: str) -> bool:
    """Return whether a variable would lead the environment back here."""
    return name.startswith(("ONCECAST_", "PYTHON", "COVERAGE_")) or name == "VIRTUAL_ENV"


@pytest.mark.parametrize("version", PYTHONS)
def test_an_installed_wheel(version: str, wheel_file: Path, tmp_path: Path) -> None:
    """All of it works in an environment of this Python. One test, as the environment is what takes the time."""
    installed = Installed(PYTHONS[version], wheel_file, tmp_path)
    is_this_version(installed)
    imports_every_module(installed)
    passes_a_message_on(installed)
    names_a_missing_extra(installed)
    is_imported_cheaply(installed)
    if version == list(PYTHONS)[-1]:  # where a package is most likely to lack a wheel
        resolves_the_extras(installed, wheel_file)
        is_typed(installed, tmp_path)


def is_this_version(installed: Installed) -> None:
    """The command and the module are of the wheel, and say the same version."""
    assert f"oncecast {oncecast.__version__}\n" == installed.command("--version").stdout
    where, version = installed.run("import oncecast; print(oncecast.__file__, oncecast.__version__)").split()
    assert Path(where).is_relative_to(installed.folder)
    assert version == oncecast.__version__


def imports_every_module(installed: Installed) -> None:
    """Only the modules of an extra miss a package, and no module is of a newer syntax or warns of an older one."""
    missing = dict(line.split() for line in installed.run(EVERY_MODULE).splitlines())
    assert set(missing.values()) <= {"redis", "nats", "nkeys", "rstream", "aiokafka", "pytest", "uvicorn"}
    assert "pytest" == missing.pop("oncecast.testing.plugin")
    rooms = (*(f"oncecast.brokers.{extra}" for extra in EXTRAS), "oncecast.asgi.hosting.")
    assert [] == [name for name in missing if not name.startswith(rooms)]


def passes_a_message_on(installed: Installed) -> None:
    """`serve` serves the client's script and what the client publishes, and ends well at SIGTERM."""
    command = [installed.folder / "bin" / "oncecast", "serve", "--dev", "--port", "0"]
    place = {"env": installed.environ, "cwd": installed.cwd}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **place) as process:  # type: ignore[call-overload]
        try:
            line = next(line for line in process.stderr if line.startswith("Oncecast is listening on"))
            assert "200 {'t': 1}\n" == installed.run(ROUND_TRIP, line.split()[-1])
            process.send_signal(signal.SIGTERM)
            assert 0 == process.wait(SECONDS), process.stderr.read()
        finally:
            process.kill()


def names_a_missing_extra(installed: Installed) -> None:
    """A broker whose client library is missing is an error of one line that says what to install."""
    for extra, url in EXTRAS.items():
        ended = installed.command("serve", "--dev", "--port", "0", "--broker", url)
        assert (2, "") == (ended.returncode, ended.stdout)
        assert re.fullmatch(rf"Error: broker: .* needs its client: pip install 'oncecast\[{extra}\]'\n", ended.stderr)


def is_imported_cheaply(installed: Installed) -> None:
    """`import oncecast` costs little CPU time, and imports a few modules of the standard library only."""
    imported = installed.run("import sys; old = set(sys.modules); import oncecast; print(*set(sys.modules) - old)")
    others = {name for name in imported.split() if name.partition(".")[0] != "oncecast"}
    assert {"oncecast"} == set(imported.split()) - others
    assert not others & {"asyncio", "ssl", "socket", "msgspec", "click", "uvloop", "pytest", "dataclasses"}
    bare, ours = (
        min(map(float, installed.run(COST, script, str(ROUNDS)).split())) for script in ("pass", "import oncecast")
    )
    assert ours - bare <= IMPORT_SECONDS


def resolves_the_extras(installed: Installed, wheel: Path) -> None:
    """There is a set of packages for all extras that this Python can install, and it has what each extra asks for."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert EXTRAS.keys() <= extras.keys()
    wheels = ("--only-binary=:all:", "--no-binary=nkeys")  # which is published as source only
    report = json.loads(installed.install("--dry-run", "--report", "-", *wheels, f"{wheel}[{','.join(extras)}]"))
    found = {package["metadata"]["name"].lower() for package in report["install"]}
    asked = {re.split(r"[^\w-]", requirement)[0] for requirements in extras.values() for requirement in requirements}
    assert set() == asked - found


def is_typed(installed: Installed, place: Path) -> None:
    """A strict checker takes the types from the wheel, and knows which names there are."""
    (place / "app.py").write_text(TYPED)
    mypy: list[str | Path] = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        place / "types",
    ]
    ended = called([*mypy, "--python-executable", installed.python, "app.py"], installed.environ, place)
    expected = [
        'app.py:13: error: Module has no attribute "Misspelt"  [attr-defined]',
        "Found 1 error in 1 file (checked 1 source file)",
    ]
    assert expected == ended.stdout.splitlines(), ended.stderr
