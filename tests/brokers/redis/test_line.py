"""A connection with many commands under way, against one that is made up; and what a URL may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis.exceptions

from oncecast.brokers.redis.broker import redis_broker
from oncecast.brokers.redis.line import RedisLine, close
from oncecast.brokers.redis.pages import read_pushed
from oncecast.brokers.redis.subscriber import RedisSubscriber
from oncecast.brokers.session import Lost
from oncecast.errors import ConfigurationError, Refusal
from oncecast.message import Retention


class Wire:
    """A connection: what is put into `answers` is read, errors are raised; `sent` is what was sent."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[bytes] = []
        self.breaks = False

    def pack_command(self, *command: Any) -> list[bytes]:
        """Pack it plainly."""
        return [" ".join(map(str, command)).encode()]

    async def send_packed_command(self, command: list[bytes], check_health: bool) -> None:
        """Note it."""
        if self.breaks:
            raise redis.exceptions.ConnectionError("broken pipe")
        self.sent += command

    async def read_response(self, disable_decoding: bool) -> Any:
        """Return the next answer."""
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def disconnect(self, nowait: bool) -> None:
        """Be in a state that can't be closed."""
        raise OSError("it is gone")


async def test_answers_come_in_the_order_of_the_commands() -> None:
    """A refused command fails alone. An answer whose waiter was cancelled is dropped."""
    wire: Any = Wire()
    line = RedisLine(wire, "p")
    running = asyncio.create_task(line.run())
    one, two, three, four = (line.ask("GET", number) for number in range(4))
    two.cancel()
    for answer in (b"0", b"1", redis.exceptions.ResponseError("no"), b"3"):
        wire.answers.put_nowait(answer)
    assert (await one, await four) == (b"0", b"3")
    with pytest.raises(redis.exceptions.ResponseError):
        await three
    assert wire.sent == [b"GET 0", b"GET 1", b"GET 2", b"GET 3"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(Lost, match="its connection was closed"):
        await line.ask("GET", 4)


@pytest.mark.parametrize("how", ["writing", "reading", "late"])
async def test_a_connection_that_breaks(how: str) -> None:
    """Each waiting call and each later call raises the reason."""
    wire: Any = Wire()
    line = RedisLine(wire, "p")
    wire.breaks = how == "writing"
    asked = line.ask("GET", 1)
    if how == "reading":
        wire.answers.put_nowait(redis.exceptions.TimeoutError("late"))
    elif how == "late":
        wire.answers.put_nowait(b"1")
        wire.answers.put_nowait(b"an answer to no question")
    with pytest.raises(Lost, match={"writing": "broken pipe", "reading": "did not answer", "late": "no question"}[how]):
        await asyncio.wait_for(line.run(), 30)
    if how != "late":
        with pytest.raises(Lost, match="its connection was closed"):
            await asked
    await close(wire)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed"), Refusal, "its memory is full"),
        (redis.exceptions.ResponseError("OOM command not allowed"), Refusal, "its memory is full"),
        (redis.exceptions.ResponseError("MISCONF Redis can't save"), Refusal, "MISCONF Redis can't save"),
        (redis.exceptions.ResponseError("NOREPLICAS Not enough"), Refusal, "NOREPLICAS Not enough"),
        (redis.exceptions.ReadOnlyError("You can't write"), Lost, "it has become a replica"),
        (redis.exceptions.ResponseError("LIFE the log has another life"), Lost, "the log has another life"),
        (redis.exceptions.NoPermissionError("no permissions"), Lost, "give its user"),
    ],
)
async def test_what_a_refused_command_means(error: Exception, kind: type[Exception], words: str) -> None:
    """Publishes that can't be taken now, or a session that is of no use."""
    wire: Any = Wire()
    line = RedisLine(wire, "p")
    running = asyncio.create_task(line.run())
    wire.answers.put_nowait(error)
    with pytest.raises(kind, match=words):
        await line.command("XADD")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_what_is_pushed_while_a_session_is_opened_comes_after_it() -> None:
    """A message may come before all subscriptions stand: it is kept, and handed over in its place."""
    wire: Any = Wire()
    subscriber = RedisSubscriber(wire, "p", "p:n:1")
    for pushed in ([b"subscribe", b"p:n:1", 1], [b"message", b"p:p:a", b"1"], [b"subscribe", b"p:p:a", 2]):
        wire.answers.put_nowait(pushed)
    await subscriber.open(["a"])
    heard: list[object] = []
    later: list[Any] = [[b"message", b"p:n:1", b"2"], [b"unsubscribe", b"p:p:a", 1], [b"subscribe", b"p:p:a", 2]]
    for pushed in (*later, OSError("gone")):
        wire.answers.put_nowait(pushed)
    with pytest.raises(Lost):
        await subscriber.hear(heard.append, lambda *message: heard.append(message), heard.append)
    assert heard == [("a", b"1"), b"2", "a"]
    wire.answers.put_nowait(redis.exceptions.NoPermissionError("no"))
    with pytest.raises(Lost, match="give its user"):
        await subscriber.open([])
    wire.breaks = True
    with pytest.raises(Lost, match="broken pipe"):
        await subscriber.unsubscribe(["a"])


@pytest.mark.parametrize("payload", [b"", b"1 0 5 9 0\nx", b"1 0 5 1\nx", b"1 0 5 1 3\n\xff\xff\xffx"])
def test_a_push_that_is_not_ours(payload: bytes) -> None:
    """It is a `ValueError`, whatever it has."""
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the parser's
        read_pushed("a", payload)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h/first", "the path is the number of a database, such as /0"),
        ("redis+sentinel://h", "the path names the primary that Sentinel watches, such as /mymaster/0"),
        ("rediss+sentinel://h/mymaster/first", "the path is the number of a database, such as /0"),
        ("redis://h?sentinel=1", "there is no option sentinel"),
    ],
)
def test_a_url_that_can_not_be_one(url: str, words: str) -> None:
    """It is refused before anything is connected to."""
    with pytest.raises(ConfigurationError, match=words):
        redis_broker(url, new_epoch=lambda: "e", policy=lambda channel: Retention())


def test_the_ports_that_are_meant() -> None:
    """Sentinel's own, where the URL names none."""
    urls = {"redis://h": "redis://h:6379", "rediss+sentinel://h,i:1/m": "rediss+sentinel://h:26379,i:1/m"}
    for url, name in urls.items():
        assert redis_broker(url, new_epoch=lambda: "e", policy=lambda channel: Retention()).name == name
