"""What a server prints about itself when it starts."""

from __future__ import annotations

import os
import socket

import pytest

from oncecast import __version__
from oncecast.server.announcement import ALONE, first_steps, started
from oncecast.server.settings import ChannelRule, Settings


@pytest.mark.parametrize(
    "settings, workers, expected",
    [
        (Settings(), 1, "1 worker, broker memory://{2}, is listening on http://127.0.0.1:{0} and http://[::1]:{1}"),
        (
            Settings(broker="sqlite:///a.db", tls_cert=("c",), tls_key=("k",)),
            3,
            "3 workers, broker sqlite:///a.db (durability process){2}, is listening on https://127.0.0.1:{0} and "
            "https://[::1]:{1}",
        ),
        (
            Settings(broker="redis://:pass@word@h/0"),
            1,
            "1 worker, broker redis://h/0{2}, is listening on http://127.0.0.1:{0} and http://[::1]:{1}",
        ),
    ],
)
def test_started(settings: Settings, workers: int, expected: str) -> None:
    """The line has the version, the process, the workers, the broker without a password, and each address."""
    with socket.socket() as four, socket.socket(socket.AF_INET6) as six:
        four.bind(("127.0.0.1", 0))
        six.bind(("::1", 0))
        ports = [sock.getsockname()[1] for sock in (four, six)]
        line = started(settings, [four, six], workers)
    alone = ", without access rules and so for this machine only"
    assert f"oncecast {__version__}, pid {os.getpid()}, {expected.format(*ports, alone)}" == line


def test_what_other_machines_may_reach() -> None:
    """With access rules, or where it was said that none are wanted."""
    rules = {"news": ChannelRule(subscribe="public")}
    for settings in (Settings(public=True), Settings(dev=True), Settings(channels=rules)):
        assert ALONE not in started(settings, [], 1)


def test_first_steps() -> None:
    """IPv6 stands in brackets, TLS is https, and each command has the address in it."""
    assert "Oncecast is listening on http://[::1]:80" == first_steps(Settings(host="::1"), 80).splitlines()[0]
    assert 4 == first_steps(Settings(host="h", tls_cert=("c",), tls_key=("k",)), 443).count("https://h:443")
