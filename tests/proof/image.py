"""Builds the image of `deploy/Dockerfile`, and runs it in both ways that the file names.

`make dist && python -m tests.proof.image`, as root, with `apt-get install mmdebstrap podman runc`. Where no registry
of images is reached, a Debian with its own Python stands for the base: `--base debian`, the default. `--base pull`
takes the one that the file names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["APPLICATION", "Podman"]

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / "build" / "image"
NAME = "oncecast"
BASE = "docker.io/library/python:3.13-slim"
RELEASE = "trixie"  # the Debian that has this Python
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
READY_SECONDS = 60.0
STOP_SECONDS = 40
FILES = 20_000  # open files of a container, where this process may not raise its own limit
APPLICATION = """
from oncecast import Oncecast

cast = Oncecast("memory://", subscribe="public")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
            if kind == "lifespan.shutdown":
                return
    await cast.publish("orders", "sold")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"shop"})
"""
ASK = "import sys, urllib.request as u; print(u.urlopen(f'http://127.0.0.1:8000{sys.argv[1]}').read().decode())"


class WrongError(AssertionError):
    """The image does not do what it is for."""


class Podman:
    """Runs podman on images and containers of its own, below a folder."""

    def __init__(self, folder: Path) -> None:
        self._begin = [
            *("podman", "--root", str(folder / "store"), "--runroot", str(folder / "run")),
            *("--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=file"),
            *("--runtime", shutil.which("runc") or "runc"),
        ]

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """Run a command, and return what it has printed. Raises `WrongError` where it ends with another status."""
        done = subprocess.run([*self._begin, *arguments], capture_output=True, text=True, check=False)
        if done.returncode != status:
            raise WrongError(
                f"podman {' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return done.stdout + (done.stderr if arguments[0] == "logs" else "")

    def begin(self, *command: str, options: tuple[str, ...] = ()) -> None:
        """Run a command of the image in a container without a network. Its health is asked for by hand."""
        limits = ("--ulimit", f"nofile={FILES}:{FILES}", "--ulimit", "nproc=4096:4096")
        self("run", "--detach", "--name", NAME, "--network=none", "--no-healthcheck", *limits, *options, NAME, *command)

    def ready(self) -> None:
        """Wait until the container's health check passes."""
        (test,) = json.loads(self("image", "inspect", NAME, "--format", "[{{json .HealthCheck.Test}}]"))
        end = time.monotonic() + READY_SECONDS
        while True:
            try:
                self("exec", NAME, *test[1:])
            except WrongError:
                if time.monotonic() > end:
                    raise WrongError(f"it is not healthy:\n{self('logs', NAME)[-2000:]}") from None
                time.sleep(0.5)
            else:
                return

    def inside(self, *command: str) -> str:
        """Run a command in the container."""
        return self("exec", NAME, *command).strip()

    def end(self) -> None:
        """Stop the container, which has to drain and exit with 0 in time, and remove it."""
        self("stop", "--time", str(STOP_SECONDS), NAME)
        status = self("inspect", NAME, "--format", "{{.State.ExitCode}}").strip()
        self("rm", NAME)
        if status != "0":
            raise WrongError(f"it has ended with {status}")


def build(podman: Podman, wheel: Path, *, pull: bool) -> None:
    """Build the image of the wheel."""
    context = WORK / "context"
    context.mkdir()
    shutil.copy(ROOT / "deploy" / "Dockerfile", context)
    shutil.copy(wheel, context)
    if not pull:
        _make_base(podman)
    package = f"PACKAGE=./{wheel.name}"
    network = ("--network=host", "--isolation=chroot", "--env", f"PIP_CERT={CERTIFICATES}")
    pulling = "--pull=always" if pull else "--pull=never"
    podman("build", "--format=docker", pulling, *network, "--tag", NAME, "--build-arg", package, str(context))


def _make_base(podman: Podman) -> None:
    base = WORK / "base"
    packages = "--include=python3,python3-pip,ca-certificates"
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", packages, RELEASE, str(base)], check=True)
    for mark in base.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # the official image's Python is nobody else's
        mark.unlink()
    (base / "usr" / "bin" / "python").symlink_to("python3")
    shutil.copy(CERTIFICATES, base / CERTIFICATES.relative_to("/"))
    subprocess.run(["tar", "--directory", str(base), "--create", "--file", str(WORK / "base.tar"), "."], check=True)
    podman("import", str(WORK / "base.tar"), BASE)


# -- what is tried


def refuses_without_rules(podman: Podman) -> None:
    """Without access rules, and without --public, it says so and ends."""
    podman.begin()
    podman("wait", NAME)
    said = podman("logs", NAME)
    podman("rm", NAME)
    if "lets anyone publish" not in said:
        raise WrongError(said)


def serves(podman: Podman) -> None:
    """It serves with two workers as no root, is healthy, and drains; the volume keeps the log for the next."""
    volume = ("--volume", "oncecast-trial:/var/lib/oncecast")
    podman.begin("oncecast", "serve", "--public", "--workers", "2", options=volume)
    podman.ready()
    if podman.inside("id", "-u") != "1000":
        raise WrongError("it runs as another user than 1000")
    podman.inside("oncecast", "pub", "news", "hello")
    podman.end()
    podman.begin("oncecast", "serve", "--public", options=volume)
    podman.ready()
    kept = podman.inside("oncecast", "sub", "news", "--last", "1", "--no-follow")
    podman.end()
    if kept.splitlines()[-1:] != ["hello"]:
        raise WrongError(f"the volume has kept {kept!r}")


def serves_an_application(podman: Podman) -> None:
    """With --app it serves an application that is added to it, and what that publishes."""
    folder = WORK / "application" / "shop"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(APPLICATION, "utf-8")
    mounted = ("--volume", f"{folder}:/srv/shop:ro", "--env", "PYTHONPATH=/srv")
    podman.begin("oncecast", "serve", "--app", "shop.main:app", options=mounted)
    podman.ready()
    answers = [podman.inside("python", "-c", ASK, path) for path in ("/buy", "/v1/channels/orders?last=1")]
    podman.end()
    if answers[0] != "shop" or '"data":"sold"' not in answers[1]:
        raise WrongError(f"it answers {answers}")


TRIALS: tuple[Callable[[Podman], None], ...] = (refuses_without_rules, serves, serves_an_application)


def run(*, pull: bool) -> Iterator[str]:
    """Yield what has been tried. Raises `WrongError`."""
    (wheel,) = sorted((ROOT / "dist").glob("*.whl"))[-1:]
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    podman = Podman(WORK)
    build(podman, wheel, pull=pull)
    size = int(podman("image", "inspect", NAME, "--format", "{{.Size}}"))
    yield f"built: {size / 1e6:.0f} MB"
    for trial in TRIALS:
        trial(podman)
        yield f"{trial.__name__}: {' '.join((trial.__doc__ or '').split())}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.proof.image", description=__doc__)
    parser.add_argument("--base", choices=("debian", "pull"), default="debian")
    options = parser.parse_args(arguments)
    missing = [program for program in ("mmdebstrap", "podman", "runc") if shutil.which(program) is None]
    if missing or os.geteuid() or not list((ROOT / "dist").glob("*.whl")):
        sys.stderr.write(f"this needs root, dist/*.whl (`make dist`), and: {', '.join(missing) or 'nothing else'}\n")
        return 2
    try:
        for line in run(pull=options.base == "pull"):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    except WrongError as error:
        sys.stderr.write(f"WRONG: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
