"""What the servers need of this machine: packages, programs, ports and processes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
LOCK_SECONDS = 120  # for another apt-get, which may be a second checkout's, or the system's own
PORTS = range(20_000, 32_000)  # below those that Linux gives to connections, which may take one at any time


class Missing(Exception):
    """A server's program is not installed. The text says what to do."""


class Broken(Exception):
    """A server did not start or stop. The text has the end of its log."""


def debian_install(package: str) -> None:
    """Install one of Debian's packages without starting its service. Raises `Missing`."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Missing(f"{package} is missing: install it, as root: apt-get install {package}")
    print(f"Installing Debian's package {package}", flush=True)
    policy = Path("/usr/sbin/policy-rc.d")  # asked by the packages' scripts before they start a service
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
    install = [*apt, "install", "--yes", "--no-install-recommends", package]
    try:
        for command in (install, [*apt, "update"], install):  # without lists the first one fails
            done = subprocess.run(command, capture_output=True, text=True, env=environ)
            if command is install and done.returncode == 0:
                return
        raise Missing(f"apt-get could not install {package}:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def which(program: str, advice: str, *, venv: bool = True) -> str:
    """Return the path of a program. Raises `Missing`."""
    path = os.environ.get("PATH", os.defpath)
    if not venv:
        path = os.pathsep.join(p for p in path.split(os.pathsep) if not p.startswith(str(ROOT / ".venv")))
    found = shutil.which(program, path=path)
    if found is None:
        raise Missing(f"there is no {program}: {advice}")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that nothing listens on now, and that no outgoing connection is given.

    A second call gets none of them, in whatever process, while this one lives, as a server needs seconds until it
    listens, or is down between two starts. A socket in Linux's abstract namespace (unix(7)) claims each.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as claim, socket.socket() as probe:
            if sys.platform == "linux":
                claim.bind(f"\0oncecast port {port}")
            probe.bind((HOST, port))
            found.append(port)
            claim.detach()  # open until the process ends
    return found


def listens(port: int) -> bool:
    """Return whether something accepts connections on a port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def asks(port: int, question: bytes) -> bytes:
    """Return the first bytes that a server answers with, or b""."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(4096)
    except OSError:
        return b""


def group_runs(group: int) -> bool:
    """Return whether a process of a group runs; one that has ended and waits for its parent does not."""
    return any(state != "Z" for state in _states(group))


def group_stands(group: int) -> bool:
    """Return whether every process of a group has been stopped by a signal."""
    return all(state in "TZ" for state in _states(group))


def _states(group: int) -> list[str]:
    """Return the state of each thread of the processes of a group, as in proc(5)."""
    states: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if _stat(process)[2] == str(group):
                states += [_stat(thread)[0] for thread in (process / "task").iterdir()]
        except OSError:  # it has ended meanwhile
            continue
    return states


def _stat(place: Path) -> list[str]:
    """Return the fields of a `stat` file after the name of the command: the state, the parent, the group and more."""
    return (place / "stat").read_text().rpartition(")")[2].split()


def listener_of(port: int) -> int | None:
    """Return the process that listens on a port of the loopback address."""
    wanted = f":{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted) and fields[3] == "0A":
            inodes.add(f"socket:[{fields[9]}]")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) in inodes:
                return int(link.parts[2])
    return None
