"""Boots a machine with systemd, and installs and runs Oncecast there as `docs/how-to/deploy.md` says.

`make dist && python -m tests.proof.booted`, as root, with `apt-get install mmdebstrap systemd-container`. The machine
is a Debian in `build/machine`, run by systemd-nspawn with a network of its own. `machine/trial.sh` is run in it when it
has booted, and what that sees is compared with `EXPECTED`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["EXPECTED", "compare", "seen"]

ROOT = Path(__file__).parent.parent.parent
MACHINE = ROOT / "build" / "machine"
HERE = Path(__file__).parent / "machine"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,iproute2,curl,procps"
PYTHON = "3.11"  # of that Debian
RELEASE = "bookworm"
BOOT_SECONDS = 300.0

EXPECTED: Mapping[str, str] = {
    "started": "0 active listening on port 8000",
    "user": "dynamic",
    "published": '"durability":"process"',
    "file": "600",
    "reloaded": '0 active "data":"hello"',
    "killed": '"data":"hello" 1',
    "stuck": '"data":"hello" 2',
    "stopped": "0 success inactive",
    "socket": '0 inactive "data":"hello" active',
    "waits": "1",
    "rolled": '2 2 0 "data":"hello"',
    "ended": "success",
    "exposure": "OK",
}
"""What the trial has to see, by the names that it gives."""


def seen(text: str) -> dict[str, str]:
    """Return the trial's lines by their names."""
    return dict(line.partition("=")[::2] for line in text.splitlines() if "=" in line)


def compare(found: Mapping[str, str]) -> list[str]:
    """Return a line for each thing that is not as it should be."""
    return [
        f"{name}: {found.get(name, 'nothing')!r}, and not {text!r}"
        for name, text in EXPECTED.items()
        if found.get(name) != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.booted", description=__doc__)
    parser.parse_args(arguments)
    missing = [program for program in ("mmdebstrap", "systemd-nspawn") if shutil.which(program) is None]
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    if missing or not wheels:
        sys.stderr.write(f"missing: {', '.join(missing) or 'dist/*.whl, which `make dist` makes'}\n")
        return 2
    machine = MACHINE / "root"
    shutil.rmtree(MACHINE, ignore_errors=True)
    MACHINE.mkdir(parents=True)
    _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(machine))
    _install(machine, wheels[-1])
    boot = ["systemd-nspawn", "--quiet", "--directory", str(machine), "--boot", "--private-network"]
    with (MACHINE / "console").open("wb") as console:
        subprocess.run(
            [*boot, "--register=no", "--keep-unit"], stdout=console, stderr=console, timeout=BOOT_SECONDS, check=False
        )
    found = seen((machine / "opt" / "seen").read_text("utf-8"))
    wrong = compare(found)
    for name in EXPECTED:
        sys.stdout.write(f"{name:10} {found.get(name, '')}\n")
    sys.stdout.write("".join(f"WRONG {line}\n" for line in wrong) or f"all {len(EXPECTED)} as expected\n")
    return 1 if wrong else 0


def _install(machine: Path, wheel: Path) -> None:
    """Install the wheel as the unit's comment says, its dependencies from files, and the units."""
    packages = machine / "opt" / "packages"
    only = ("--python-version", PYTHON, "--only-binary=:all:")
    _run(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(packages), *only, str(wheel))
    inside = ("chroot", str(machine))
    _run(*inside, "python3", "-m", "venv", "/opt/oncecast")
    pip = ("/opt/oncecast/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/opt/packages")
    _run(*inside, *pip, "oncecast")
    _run(*inside, "/opt/oncecast/bin/oncecast", "config", "init", "/etc/oncecast.toml")
    units = machine / "etc" / "systemd" / "system"
    for file in (ROOT / "deploy" / "oncecast.service", ROOT / "deploy" / "oncecast.socket", HERE / "trial.service"):
        shutil.copy(file, units)
    shutil.copy(HERE / "trial.sh", machine / "opt")
    (machine / "opt" / "trial.sh").chmod(0o755)
    _run(*inside, "systemctl", "enable", "trial.service")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    sys.exit(main())
