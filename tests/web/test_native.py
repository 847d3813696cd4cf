"""What a browser brings along, with nothing of ours in between: `EventSource`, `WebSocket` and `fetch`.

The page is blank and of another origin than the server, as a front end's is.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from oncecast.message import Draft, Kind
from oncecast.server.server import Server
from oncecast.server.settings import RetentionSettings, Settings
from oncecast.testing.pipe import FaultyPipe

if TYPE_CHECKING:
    from tests.web.conftest import Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE_SECONDS = 30.0
BLANK = b"<!doctype html><title>Blank</title><link rel=icon href=data:,>"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BLANK)

Serving = Callable[..., Awaitable[Server]]

# What the scripts below share. `heard` collects until `count` things were heard, or it has `stopped`.
TOOLS = """
globalThis.collect = (count) => {
  const heard = [];
  let enough;
  const done = new Promise((resolve) => (enough = resolve));
  const hear = (thing) => heard.push(thing) === count && enough(heard);
  return { heard, hear, done };
};
globalThis.socket = (url, protocols, count) => {
  const { heard, hear, done } = collect(count);
  const socket = protocols ? new WebSocket(url, protocols) : new WebSocket(url);
  socket.binaryType = "arraybuffer";
  const opened = new Promise((resolve) => (socket.onopen = () => resolve(socket.protocol)));
  const closed = new Promise((resolve) => (socket.onclose = ({ code, reason, wasClean }) =>
    resolve({ code, reason, wasClean })));
  socket.onmessage = ({ data }) => hear(typeof data === "string" ? data : [...new Uint8Array(data)]);
  return { socket, opened, closed, heard, done };
};
"""


@pytest_asyncio.fixture(loop_scope="session")
async def origin() -> AsyncIterator[str]:
    """A web server of somebody else, with a blank page; this is its origin."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER + BLANK)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a browser opens connections in advance, and may not use them
        finally:
            writer.close()

    site = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{site.sockets[0].getsockname()[1]}"
    site.close()
    await site.wait_closed()


@pytest_asyncio.fixture(loop_scope="session")
async def serving() -> AsyncIterator[Serving]:
    """Start a server, with these settings, that is stopped at the end."""
    servers = []

    async def start(**settings: Any) -> Server:
        server = Server(Settings(port=0, **settings))
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(0)


@pytest_asyncio.fixture(loop_scope="session")
async def server(serving: Serving, origin: str) -> Server:
    """A server that allows the blank page's origin."""
    return await serving(origins=(origin,))


@pytest_asyncio.fixture(loop_scope="session")
async def blank(visit: Visiting, origin: str) -> Visit:
    """The blank page, with the tools."""
    page = await visit(origin + "/")
    await page.page.evaluate(f"() => {{ {TOOLS} }}")
    return page


async def run(page: Visit, script: str, **names: object) -> Any:
    """Run the body of an async function in the page, with these names; return what it returns."""
    arguments = f"({{ {', '.join(names)} }})"
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await page.page.evaluate(f"async {arguments} => {{ {script} }}", names)


async def publish(server: Server, *data: str, event: str | None = None, channel: str = "news") -> list[str]:
    """Publish texts in the server's own process; return their ids."""
    receipts: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    drafts = [Draft(channel, text.encode(), Kind.TEXT, event) for text in data]
    server.node.publish(drafts, lambda outcomes: receipts.set_result(list(outcomes)))
    return [receipt.id for receipt in await receipts]


def url(server: Server | FaultyPipe, channel: str = "news", scheme: str = "http") -> str:
    """Return a channel's URL, at the server or through a pipe."""
    return f"{scheme}://127.0.0.1:{server.port}/v1/channels/{channel}"


def preflights(server: Server) -> int:
    """Return how many preflights the server has answered."""
    return server.app.counters.requests.get(204, 0)


# -- EventSource

OPEN_SOURCE = """
const source = new EventSource(url, { withCredentials });
const opened = new Promise((resolve) => {
  source.onopen = () => resolve("open");
  source.onerror = () => resolve(`error, readyState ${source.readyState}`);
});
const first = await opened;
source.close();
return first;
"""


@pytest.mark.parametrize("credentials", [False, True])
async def test_event_source_of_an_allowed_origin(server: Server, blank: Visit, credentials: bool) -> None:
    """A page of an origin in `origins` may listen, with its cookies too, and no preflight is asked."""
    assert "open" == await run(blank, OPEN_SOURCE, url=url(server), withCredentials=credentials)
    assert 0 == preflights(server)


async def test_event_source_where_any_origin_is_allowed(serving: Serving, blank: Visit) -> None:
    """`*` lets any page listen, but not with its cookies."""
    server = await serving(origins=("*",))
    blank.expect_problems("blocked by CORS policy", "^Failed to load resource: net::ERR_FAILED")
    assert "open" == await run(blank, OPEN_SOURCE, url=url(server), withCredentials=False)
    assert "error, readyState 2" == await run(blank, OPEN_SOURCE, url=url(server), withCredentials=True)


async def test_pages_of_this_machine_in_development(serving: Serving, blank: Visit) -> None:
    """With `dev`, a page of loopback may listen though its origin is in no list."""
    server = await serving(dev=True)
    assert "open" == await run(blank, OPEN_SOURCE, url=url(server), withCredentials=True)


async def test_event_source_hears_messages(server: Server, blank: Visit) -> None:
    """Data, names and ids come as they were published: lines, an unnamed and a named event, and a gap."""
    script = """
    const { hear, done } = collect(3);
    const source = new EventSource(`${url}?after=old-7`);
    for (const name of ["message", "greeting", "gap"]) {
      source.addEventListener(name, ({ type, data, lastEventId }) => hear([type, data, lastEventId]));
    }
    const heard = await done;
    source.close();
    return heard;
    """
    epoch, _ = (await publish(server, "one\ntwo\n\n three"))[0].split("-")
    await publish(server, "ü€😀", event="greeting")
    gap, *messages = await run(blank, script, url=url(server))
    assert ["gap", f"{epoch}-0"] == [gap[0], gap[2]]
    assert '"reason":"epoch"' in gap[1]
    assert [["message", "one\ntwo\n\n three", f"{epoch}-1"], ["greeting", "ü€😀", f"{epoch}-2"]] == messages


async def test_event_source_resumes_without_a_preflight(server: Server, blank: Visit) -> None:
    """Cut off, the browser comes back by itself with `Last-Event-ID`: all come once, in order, and nothing is asked."""
    listen = """
    globalThis.heard = [];
    globalThis.source = new EventSource(`${url}?last=3`);
    source.onmessage = ({ data }) => heard.push(data);
    """
    hear = "(count) => heard.length >= count"
    blank.expect_problems("^Failed to load resource: net::ERR_")
    await publish(server, "0", "1", "2")
    async with FaultyPipe(("127.0.0.1", server.port)) as pipe:
        await run(blank, listen, url=url(pipe))
        await blank.until(hear, 3)
        assert 1 == pipe.cut()
        await publish(server, "3", "4", channel="news")
        await publish(server, "elsewhere", channel="sport")
        await blank.until(hear, 5)
        await publish(server, "5")
        await blank.until(hear, 6)
        heard = await run(blank, "source.close(); return heard")
        assert ["0", "1", "2", "3", "4", "5"] == heard  # `last` again would have brought 2 again
        assert 2 == pipe.connections
    assert 0 == preflights(server)


async def test_event_source_of_a_server_that_stops(server: Server, blank: Visit) -> None:
    """The stream ends, and the browser will try again: the error's `readyState` is CONNECTING."""
    open_it = """
    const source = (globalThis.source = new EventSource(url));
    globalThis.ended = new Promise((resolve) => (source.onerror = () => resolve(source.readyState)));
    return new Promise((resolve) => (source.onopen = () => resolve("open")));
    """
    blank.expect_problems("^Failed to load resource: net::ERR_CONNECTION_REFUSED")  # where it has tried by the end
    assert "open" == await run(blank, open_it, url=url(server))
    await server.stop()
    assert 0 == await run(blank, "const state = await ended; source.close(); return state")


# -- other origins

INTRUDE = """
const source = new EventSource(url);
const stream = await new Promise((resolve) => {
  source.onopen = () => resolve("open");
  source.onerror = () => resolve(source.readyState);
});
const sockets = [];
for (const protocols of [[], ["oncecast.v1"]]) {
  const { closed, opened } = socket(url.replace("http", "ws"), protocols, 1);
  sockets.push(await Promise.race([opened, closed.then(({ code }) => code)]));
}
const failed = (error) => error.name;
const read = await fetch(url).then((answer) => answer.status, failed);
const body = { method: "POST", body: "intruder" };
const simple = await fetch(url, { ...body, mode: "no-cors" }).then((answer) => answer.type, failed);
const asked = await fetch(url, { ...body, headers: { "Idempotency-Key": "k" } }).then(({ status }) => status, failed);
return { stream, sockets, read, simple, asked };
"""


async def test_a_page_of_another_origin_gets_nothing(serving: Serving, blank: Visit) -> None:
    """A page whose origin is not allowed can neither listen, read nor publish, not by a blind POST either."""
    server = await serving(origins=("http://127.0.0.1:1", "https://app.example"))
    blank.expect_problems("blocked by CORS policy", "^Failed to load resource", "^WebSocket connection to .* 403")
    seen = await run(blank, INTRUDE, url=url(server))
    expected = {"stream": 2, "sockets": [1006, 1006], "read": "TypeError", "simple": "opaque", "asked": "TypeError"}
    assert expected == seen
    assert 0 == server.app.node.publishes
    assert {403: 6} == server.app.counters.requests


# -- fetch


async def test_fetch_publishes_and_reads(server: Server, blank: Visit) -> None:
    """JSON is published after one preflight, which is kept; an answer's ETag can be read, and gets a 304."""
    script = """
    const publish = async (key) => {
      const headers = { "Content-Type": "application/json", "Idempotency-Key": key, "Oncecast-Event": "tick" };
      const answer = await fetch(url, { method: "POST", headers, body: JSON.stringify({ t: 1 }) });
      return [answer.status, await answer.json()];
    };
    const published = [await publish("a"), await publish("b"), await publish("b")];
    const answer = await fetch(`${url}?last=20`, { cache: "no-store" });
    const tag = answer.headers.get("ETag");
    const { messages } = await answer.json();
    const again = await fetch(`${url}?last=20`, { cache: "no-store", headers: { "If-None-Match": tag } });
    return { published, tag, messages, again: again.status };
    """
    seen = await run(blank, script, url=url(server))
    assert [201, 201, 201] == [status for status, _ in seen["published"]]
    first, second, repeated = [receipt["id"] for _, receipt in seen["published"]]
    assert second == repeated
    assert [first, second] == [message["id"] for message in seen["messages"]]
    assert [{"t": 1}, "tick"] == [seen["messages"][0]["data"], seen["messages"][0]["event"]]
    assert f'"{second}"' in seen["tag"]
    assert 304 == seen["again"]
    assert 2 == preflights(server)  # one for all POSTs, and one for the conditional GET, whose URL is another


async def test_fetch_reads_why_it_was_refused(server: Server, blank: Visit) -> None:
    """An error's status and body can be read by a page of an allowed origin."""
    blank.expect_problems("^Failed to load resource: the server responded with a status of 400")
    script = "const answer = await fetch(url); return [answer.status, (await answer.json()).error.code];"
    assert [400, "cursor_invalid"] == await run(blank, script, url=url(server) + "?after=yesterday")


async def test_fetch_waits_in_a_long_poll(server: Server, blank: Visit) -> None:
    """A long poll is answered as soon as there is a message."""
    ask = "globalThis.poll = fetch(url).then((answer) => answer.json());"
    await run(blank, ask, url=url(server) + "?after=latest&wait=20")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while server.node.hub.subscriptions == 0:  # noqa: ASYNC110 - the hub tells nobody
            await asyncio.sleep(0.005)
    (identity,) = await publish(server, "at last")
    answer = await run(blank, "return poll")
    assert [identity] == [message["id"] for message in answer["messages"]]


# -- WebSocket


async def test_raw_socket(server: Server, blank: Visit) -> None:
    """Without a subprotocol a frame is data: text as text, binary as an ArrayBuffer or a Blob."""
    script = """
    const one = socket(url, null, 3);
    const protocol = await one.opened;
    one.socket.send("hello ü");
    one.socket.send(new Uint8Array([0, 255, 10]));
    one.socket.send("");
    const heard = await one.done;
    const other = socket(`${url}?last=2`, null, 9);
    other.socket.binaryType = "blob";
    const blob = await new Promise((resolve) => (other.socket.onmessage = ({ data }) => resolve(data)));
    const bytes = [...new Uint8Array(await blob.arrayBuffer())];
    one.socket.close(4999, "bye");
    other.socket.close();
    return { protocol, heard, blob: [blob instanceof Blob, bytes], closed: [await one.closed, await other.closed] };
    """
    seen = await run(blank, script, url=url(server, scheme="ws"))
    assert ["", ["hello ü", [0, 255, 10], ""]] == [seen["protocol"], seen["heard"]]
    assert [True, [0, 255, 10]] == seen["blob"]
    one, other = seen["closed"]
    assert {"code": 4999, "reason": "", "wasClean": True} == one
    assert [1005, True] == [other["code"], other["wasClean"]]


async def test_socket_of_v1(server: Server, blank: Visit) -> None:
    """With `oncecast.v1` frames are JSON, and it is chosen among several that a page offers."""
    script = """
    const { socket: it, opened, done, closed } = socket(url, ["other.v9", "oncecast.v1"], 3);
    const protocol = await opened;
    it.send(JSON.stringify({ type: "publish", channel: "news", data64: "AP8K", ref: 7 }));
    const heard = (await done).map((frame) => JSON.parse(frame));
    it.close(1000);
    return { protocol, heard, closed: await closed };
    """
    seen = await run(blank, script, url=url(server, scheme="ws"))
    assert "oncecast.v1" == seen["protocol"]
    frames = {frame["type"]: frame for frame in seen["heard"]}
    assert {"subscribed", "published", "message"} == set(frames)
    assert 7 == frames["published"]["ref"]
    assert frames["published"]["id"] == frames["message"]["id"]
    assert b"\x00\xff\n" == base64.b64decode(frames["message"]["data64"]["base64"])
    assert [1000, True] == [seen["closed"]["code"], seen["closed"]["wasClean"]]


async def test_socket_of_an_unknown_subprotocol(server: Server, blank: Visit) -> None:
    """A subprotocol that is not ours is refused in the handshake; a page sees 1006."""
    blank.expect_problems("^WebSocket connection to .* 400")
    code = await run(blank, "return (await socket(url, ['mqtt'], 1).closed).code", url=url(server, scheme="ws"))
    assert 1006 == code
    assert {400: 1} == server.app.counters.requests


async def test_raw_socket_is_closed_by_a_gap(serving: Serving, origin: str, blank: Visit) -> None:
    """A gap, which no raw frame can tell, closes with 4410 and says where the log goes on."""
    server = await serving(origins=(origin,), retention=RetentionSettings(messages=2))
    first, *_, last = await publish(server, "1", "2", "3", "4")
    server.node.tick()
    script = "const { closed, heard } = socket(url, null, 9); return [await closed, heard];"
    closed, heard = await run(blank, script, url=f"{url(server, scheme='ws')}?after={first}")
    third = f"{last.split('-')[0]}-2"
    assert {"code": 4410, "reason": f"gap (expired) on news; go on from {third}", "wasClean": True} == closed
    assert [] == heard


async def test_sockets_of_a_server_that_stops(server: Server, blank: Visit) -> None:
    """A server that stops closes with 1012, after `drain` on `oncecast.v1`."""
    open_them = """
    globalThis.raw = socket(url, null, 9);
    globalThis.v1 = socket(url, ["oncecast.v1"], 2);
    return [await raw.opened, await v1.opened];
    """
    assert ["", "oncecast.v1"] == await run(blank, open_them, url=url(server, scheme="ws"))
    await server.stop()
    raw, v1, frames = await run(blank, "return [await raw.closed, await v1.closed, await v1.done]")
    assert [(1012, True)] * 2 == [(closed["code"], closed["wasClean"]) for closed in (raw, v1)]
    assert '"type":"drain"' in frames[1]


async def test_publishing_on_a_socket_of_several_channels(server: Server, blank: Visit) -> None:
    """A raw socket of several channels can't publish: it is closed with 4400, which a page can read."""
    script = "const s = socket(url, null, 9); await s.opened; s.socket.send('to whom?'); return (await s.closed).code;"
    assert 4400 == await run(blank, script, url=url(server, "news,sport", "ws"))
