"""New settings while a server serves: what holds at once, what waits, and what is wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from oncecast.errors import ConfigurationError
from oncecast.server.reload import FIXED, read_again
from oncecast.server.settings import ChannelRule, Limits, RetentionSettings, Settings

if TYPE_CHECKING:
    from tests.server.conftest import Open


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "oncecast.server")


def test_what_can_change_does_and_the_rest_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """Sockets, processes and the broker stay as they are until a restart, and the log says which were asked for."""
    current = Settings(port=1)
    wanted = Settings(
        port=2,
        workers=3,
        deflate=True,
        limits=Limits(message_bytes=5),
        retention=RetentionSettings(messages=7, key_seconds=60),
        channels={"a": ChannelRule(messages=1)},
    )
    found = read_again(current, lambda: wanted)
    retention = RetentionSettings(messages=7)
    assert msgspec.structs.replace(wanted, port=1, workers=1, retention=retention) == found
    assert "these settings apply after a restart only: port, workers, retention.key_seconds" in caplog.text
    assert set(FIXED) <= set(Settings.__struct_fields__)


def test_nothing_new_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    """Without a change one line says that the settings have been read."""
    assert Settings() == read_again(Settings(), Settings)
    assert ["the settings have been read again"] == [record.message for record in caplog.records]


def test_tls_can_be_neither_begun_nor_ended(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Whether connections are encrypted is decided when a socket begins to listen."""
    current = Settings(tls_cert=("c.pem",), tls_key=("k.pem",))
    assert current == read_again(current, Settings)
    assert "after a restart only: tls_cert, tls_key" in caplog.text


@pytest.mark.parametrize("fault", ["settings", "certificate"])
def test_a_mistake_is_one_line_and_changes_nothing(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, fault: str
) -> None:
    """Settings that can't be read, and a certificate that can't serve, leave all as it was."""

    def read() -> Settings:
        if fault == "settings":
            raise ConfigurationError("oncecast.toml: limits is not one")
        return Settings(tls_cert=(str(tmp_path / "none.pem"),), tls_key=(str(tmp_path / "none.pem"),))

    assert read_again(Settings(), read) is None
    (record,) = caplog.records
    assert record.message.startswith("the settings stay as they were: ")
    assert "\n" not in record.message


async def test_a_server_takes_new_settings_on_and_drops_nobody(open_site: Open) -> None:
    """Limits, retention and origins hold for what begins after; a stream that was there goes on."""
    site = await open_site(Settings(port=0))
    stream = await site.sse("a")
    for _ in range(5):
        site.publish("a", b"x")
    post = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n123"
    poll = b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
    peer = await site.connect(poll)
    assert 5 == len((await peer.answer()).json["messages"])
    site.server.reload(
        msgspec.structs.replace(
            site.server.settings,
            origins=("https://new.example",),
            limits=Limits(message_bytes=2, poll_messages=1, publish_wait_seconds=7),
            retention=RetentionSettings(messages=2),
        )
    )
    assert 7 == site.server.node.held.seconds
    await peer.send(poll)
    assert 1 == len((await peer.answer()).json["messages"])
    await peer.send(post)
    assert 413 == (await peer.answer()).status
    await peer.send(poll.replace(b"Host: localhost", b"Host: localhost\r\nOrigin: https://new.example"))
    assert "https://new.example" == (await peer.answer()).headers["access-control-allow-origin"]
    site.publish("a", b"y")
    assert 2 == site.server.node.log.count
    assert b"data: y" in await stream.until(b"data: y")
