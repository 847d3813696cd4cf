"""The faulty pipe: each fault at its exact byte, in its direction, and nothing left behind."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from oncecast.testing.pipe import Faults, FaultyPipe, Plan

DATA = bytes(range(256)) * 4


class Echo:
    """A server that sends back what it gets, and counts it; at the end of it, it says `bye`."""

    def __init__(self) -> None:
        self.port = 0
        self.got = bytearray()
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.got += data
                writer.write(data)
            writer.write(b"bye")
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    """A running echo server."""
    made = Echo()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(20):
        yield made
    server.close()


def pipe_to(echo: Echo, *, up: Faults | None = None, down: Faults | None = None) -> FaultyPipe:
    """Return a pipe whose every connection has these faults."""
    plan = Plan(up or Faults(), down or Faults())
    return FaultyPipe(("127.0.0.1", echo.port), lambda number, rng: plan)


async def exchange(pipe: FaultyPipe, data: bytes = DATA) -> bytes:
    """Send the data and read until the connection ends; a reset is an end too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
    got = bytearray()
    try:
        writer.write(data)
        writer.write_eof()
        while piece := await reader.read(65536):
            got += piece
    except ConnectionError:
        got += b"<reset>"
    finally:
        writer.close()
    return bytes(got)


async def test_without_faults_all_bytes_go_both_ways_and_so_do_the_ends(echo: Echo) -> None:
    """A pipe without a plan changes nothing: bytes, half-closes and closes pass."""
    async with FaultyPipe(("127.0.0.1", echo.port)) as pipe:
        assert DATA + b"bye" == await exchange(pipe)
        assert (len(DATA), len(DATA) + 3) == (pipe.up_bytes, pipe.down_bytes)
        assert (1, 0) == (pipe.connections, pipe.cuts)


async def test_what_comes_from_the_server_may_be_rewritten(echo: Echo) -> None:
    """Bytes on the way down are replaced; those on the way up are as they were."""
    async with FaultyPipe(("127.0.0.1", echo.port), rewrite=lambda data: data.replace(b"bye", b"BYE")) as pipe:
        assert b"BYE?BYE" == await exchange(pipe, b"bye?")
        assert b"bye?" == bytes(echo.got)


@pytest.mark.parametrize("at", [0, 1, 2, 100, 1023])
async def test_a_cut_on_the_way_down_stands_at_its_byte(echo: Echo, at: int) -> None:
    """The client gets exactly the bytes before the cut, then the end."""
    async with pipe_to(echo, down=Faults(cut_after=at)) as pipe:
        assert DATA[:at] == (await exchange(pipe)).removesuffix(b"<reset>")
        assert 1 == pipe.cuts


@pytest.mark.parametrize("at", [0, 1, 777])
async def test_a_cut_on_the_way_up_stands_at_its_byte(echo: Echo, at: int) -> None:
    """The server gets exactly the bytes before the cut, and both ends are closed."""
    async with pipe_to(echo, up=Faults(cut_after=at)) as pipe:
        assert b"bye" not in await exchange(pipe)
        await echo.gone.wait()
        assert DATA[:at] == bytes(echo.got)
        assert 1 == pipe.cuts


async def test_a_reset_is_a_reset(echo: Echo) -> None:
    """With `reset` the client's connection does not end in order."""
    async with pipe_to(echo, down=Faults(cut_after=10, reset=True)) as pipe:
        reader, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
        writer.write(DATA)
        with pytest.raises(ConnectionResetError):
            await reader.read(-1)
        writer.close()


async def test_a_half_close_leaves_the_other_direction(echo: Echo) -> None:
    """After a half-close on the way up the server's answer and goodbye still come down."""
    async with pipe_to(echo, up=Faults(half_close_after=5)) as pipe:
        assert DATA[:5] + b"bye" == await exchange(pipe)
        assert 0 == pipe.cuts


async def test_swallowed_bytes_are_gone_and_the_rest_comes(echo: Echo) -> None:
    """Only the bytes that the fault names are swallowed."""
    async with pipe_to(echo, up=Faults(swallow_after=3, swallow_bytes=4)) as pipe:
        assert DATA[:3] + DATA[7:] + b"bye" == await exchange(pipe)


async def test_an_answer_can_be_swallowed_whole(echo: Echo) -> None:
    """The server has the request and has answered; the client sees only the end."""
    async with pipe_to(echo, down=Faults(swallow_after=0)) as pipe:
        assert b"" == await exchange(pipe)
        assert DATA == bytes(echo.got)


async def test_a_stall_reads_no_further_until_it_is_resumed(echo: Echo) -> None:
    """A stalled direction passes its bytes on, then nothing, then the rest."""
    async with pipe_to(echo, up=Faults(stall_after=4)) as pipe:
        reader, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
        writer.write(DATA)
        writer.write_eof()
        assert DATA[:4] == await reader.readexactly(4)
        assert DATA[:4] == bytes(echo.got)
        pipe.resume()
        assert DATA[4:] + b"bye" == await reader.read(-1)
        writer.close()


async def test_a_stalled_pipe_holds_its_sender_up(echo: Echo) -> None:
    """A stall is felt as backpressure: the sender can't get rid of more than the buffers hold."""
    async with pipe_to(echo, up=Faults(stall_after=0)) as pipe:
        _, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
        writer.write(bytes(64 << 20))
        assert writer.transport.get_write_buffer_size() > 32 << 20
        writer.transport.abort()


async def test_byte_by_byte(echo: Echo) -> None:
    """Pieces of one byte come to the same bytes."""
    async with pipe_to(echo, up=Faults(piece_bytes=1), down=Faults(piece_bytes=1)) as pipe:
        assert DATA + b"bye" == await exchange(pipe)


async def test_slowly(echo: Echo) -> None:
    """A delay before each piece takes as long as it says, at least."""
    async with pipe_to(echo, down=Faults(piece_bytes=512, delay=0.02)) as pipe:
        began = asyncio.get_running_loop().time()
        assert DATA + b"bye" == await exchange(pipe)
        assert asyncio.get_running_loop().time() - began >= 0.04


async def test_cut_by_hand(echo: Echo) -> None:
    """`cut` ends every connection at once, says how many, and counts them once."""
    async with FaultyPipe(("127.0.0.1", echo.port)) as pipe:
        pairs = [await asyncio.open_connection("127.0.0.1", pipe.port) for _ in range(3)]
        for reader, writer in pairs:
            writer.write(b"x")
            assert b"x" == await reader.read(1)
        assert 3 == pipe.cut()
        assert 0 == pipe.cut()
        for reader, writer in pairs:
            assert b"" == await reader.read(1)
            writer.close()
        assert (3, 3) == (pipe.connections, pipe.cuts)


async def test_a_target_that_refuses_resets_the_client() -> None:
    """Where the server is down, the client is not left waiting."""
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with asyncio.timeout(10), FaultyPipe(("127.0.0.1", port)) as pipe:
        assert (await exchange(pipe, b"")).removesuffix(b"<reset>") == b""
        assert 0 == pipe.cuts


async def test_a_peer_that_breaks_off_is_not_counted_as_a_cut(echo: Echo) -> None:
    """The client's own reset goes through to the server, and the pipe has cut nothing."""
    async with FaultyPipe(("127.0.0.1", echo.port)) as pipe:
        reader, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
        writer.write(b"x")
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await echo.gone.wait()
        assert 0 == pipe.cuts


@pytest.mark.parametrize("stalled", [True, False], ids=["stalled", "flowing"])
async def test_close_ends_every_task_and_twice_is_fine(echo: Echo, stalled: bool) -> None:
    """After `close` no task of the pipe is left, whatever its connections were doing."""
    before = asyncio.all_tasks()
    accepted = asyncio.Event()

    def plan(number: int, rng: random.Random) -> Plan:
        accepted.set()
        return Plan(up=Faults(stall_after=0 if stalled else None))

    pipe = FaultyPipe(("127.0.0.1", echo.port), plan)
    await pipe.start()
    _, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
    writer.write(bytes(8 << 20))
    await accepted.wait()
    await pipe.close()
    await pipe.close()
    await echo.gone.wait()
    writer.close()
    await asyncio.sleep(0)
    assert set() == asyncio.all_tasks() - before - {asyncio.current_task()}


async def test_a_connection_that_comes_while_the_pipe_closes_is_turned_away(echo: Echo) -> None:
    """A client that was accepted and not yet served is closed, not forgotten."""
    pipe = FaultyPipe(("127.0.0.1", echo.port))
    reader, writer = await asyncio.open_connection("127.0.0.1", echo.port)
    await pipe._accept(reader, writer)
    assert b"" == await reader.read(1)
    assert (0, True) == (pipe.connections, writer.is_closing())


async def test_a_cut_while_the_target_is_being_connected(echo: Echo) -> None:
    """A cut that comes before the server's end is there holds for that end too."""

    def plan(number: int, rng: random.Random) -> Plan:
        asyncio.get_running_loop().call_soon(pipe.cut)
        return Plan()

    async with FaultyPipe(("127.0.0.1", echo.port), plan) as pipe:
        assert b"" == (await exchange(pipe)).removesuffix(b"<reset>")
        assert 1 == pipe.cuts


async def test_a_resumed_stall_and_a_way_that_ends_let_the_other_go_on(echo: Echo) -> None:
    """Nothing is lost where one direction ends long before the other."""
    async with pipe_to(echo, down=Faults(stall_after=0)) as pipe:
        reader, writer = await asyncio.open_connection("127.0.0.1", pipe.port)
        writer.write(DATA)
        writer.write_eof()
        await echo.gone.wait()
        pipe.resume()
        assert DATA + b"bye" == await reader.read(-1)
        writer.close()


async def test_the_seed_determines_every_draw_and_is_shown(echo: Echo) -> None:
    """Two pipes of one seed draw the same; the seed stands in the representation, for a failure's report."""

    def plan(drawn: list[int]) -> Callable[[int, random.Random], Plan]:
        def draw(number: int, rng: random.Random) -> Plan:
            drawn.append(rng.randrange(1, len(DATA)))
            return Plan(down=Faults(cut_after=drawn[-1]))

        return draw

    runs: list[list[int]] = [[], []]
    for drawn in runs:
        async with FaultyPipe(("127.0.0.1", echo.port), plan(drawn), seed=7) as pipe:
            assert "seed=7" in repr(pipe)
            for _ in range(5):
                await exchange(pipe)
            assert 5 == pipe.cuts
    assert runs[0] == runs[1]
    assert FaultyPipe(("127.0.0.1", 1)).seed != FaultyPipe(("127.0.0.1", 1)).seed
