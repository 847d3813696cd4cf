"""The start page against a real server, in a real browser: what it shows, and that it keeps its word when cut off."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from oncecast.testing.pipe import FaultyPipe
from tests.web.prefix import Prefix

if TYPE_CHECKING:
    from tests.web.conftest import ServerProcess, Serving, Visit, Visiting

pytestmark = pytest.mark.asyncio(loop_scope="session")

KINDS = ("short-poll", "long-poll", "sse", "websocket")
OTHERS_GO_ON = 8  # messages while one listener is cut: two seconds' worth, so that the short poll lags visibly too
UNREACHABLE = (r"^Failed to load resource: net::ERR_", r"^WebSocket connection to .* failed")
PHONE = {"width": 390, "height": 844}
WIDTHS = (320, 360, 768, 1440)  # the narrowest is what WCAG 2.2 §1.4.10 asks for
SOUND = {"missed": "0", "repeated": "0", "disordered": "0"}

# How many lines a snippet takes.
LINES = """(pre) =>
  new Set([...pre.querySelector("code").getClientRects()].map(({ top }) => Math.round(top))).size"""

# What the panels show now, by kind. `messages` and `requests` are read from text such as "1,234".
PANELS = """() => Object.fromEntries([...document.querySelectorAll("[data-panel]")].map((panel) => {
  const field = (name) => panel.querySelector(`[data-field=${name}]`);
  const number = (name) => Number(field(name).textContent.replaceAll(",", ""));
  const { missed, repeated, disordered } = field("integrity").dataset;
  return [panel.dataset.panel, {
    state: panel.dataset.state, messages: number("messages"), requests: number("requests"),
    books: { missed, repeated, disordered }, integrity: field("integrity").textContent,
    resume: field("resume").textContent, id: field("newest-id").textContent, latest: field("latest").textContent,
    bytes: field("bytes").textContent,
  }];
}))"""

# Whether each of `kinds` is in `state` and has `more` messages than in `before`.
MOVED = f"""({{ kinds, state, more, before }}) => {{
  const panels = ({PANELS})();
  return kinds.every((kind) => (!state || panels[kind].state === state)
    && panels[kind].messages >= (before[kind]?.messages ?? 0) + more);
}}"""


async def panels(visit: Visit) -> dict[str, Any]:
    """Return what each panel shows, by kind."""
    shown: dict[str, Any] = await visit.page.evaluate(PANELS)
    return shown


async def moved(visit: Visit, *kinds: str, more: int = 1, state: str | None = "live") -> dict[str, Any]:
    """Wait until each of these panels has so many more messages than now, and return what all show then."""
    before = await panels(visit)
    await visit.until(MOVED, {"kinds": list(kinds), "state": state, "more": more, "before": before})
    return await panels(visit)


async def toggle(visit: Visit, kind: str) -> None:
    """Press a panel's button."""
    await visit.page.click(f"[data-panel={kind}] [data-action=toggle]")


async def in_state(visit: Visit, state: str, *kinds: str) -> None:
    """Wait until each of these panels is in a state."""
    for kind in kinds:
        await visit.page.wait_for_selector(f"[data-panel={kind}][data-state={state}]")


async def resumed(visit: Visit, kind: str) -> int:
    """Wait until a panel is live again and tells a whole account of its resume; return how many it caught up."""
    await in_state(visit, "live", kind)
    caught = f"""(kind) => {{
      const found = /^Resumed: (\\d+) messages? caught up, 0 missed, 0 repeated$/.exec(({PANELS})()[kind].resume);
      return found && Number(found[1]) >= {OTHERS_GO_ON} && found[1];
    }}"""
    caught_up = await visit.page.wait_for_function(caught, arg=kind)
    return int(await caught_up.json_value())


# -- listening


async def test_all_four_listen(server: ServerProcess, visit: Visiting) -> None:
    """Every listener is live, gets messages, and finds them in order, none missed and none repeated."""
    page = await visit(server.url)
    await moved(page, *KINDS)  # the history that a listener begins with has no delays
    shown = await moved(page, *KINDS, more=4)
    assert list(KINDS) == list(shown)
    for panel in shown.values():
        assert SOUND == panel["books"]
        assert "in order · none missed · none repeated" == panel["integrity"]
        assert re.fullmatch(r"[A-Za-z0-9_]+-\d+", panel["id"])
        assert re.search(r"\d m?s$", panel["latest"])
        assert re.search(r"\d [kM]?B$", panel["bytes"])
    # Streams ask once; a long poll asks for each message, give or take those that came together.
    assert (1, 1) == (shown["sse"]["requests"], shown["websocket"]["requests"])
    assert shown["long-poll"]["requests"] > shown["short-poll"]["requests"] > 1


async def test_facts_of_the_server(server: ServerProcess, visit: Visiting) -> None:
    """The head of the page says which server this is, and what its machine does."""
    page = await visit(server.url)
    await page.until("() => /^[34]\\.\\d \\/ s$/.test(document.querySelector('[data-fact=rate]').textContent)")
    assert f"127.0.0.1:{server.port}" == await page.page.text_content("[data-fact=server]")
    assert "in step" == await page.page.text_content("[data-fact=clock]")


async def test_the_first_screens_of_a_phone(server: ServerProcess, visit: Visiting) -> None:
    """On a phone the head of the page is short, and the form comes before the listeners."""
    page = await visit(server.url, viewport=PHONE)
    await moved(page, *KINDS)
    shown = page.page.locator(".facts [data-fact]:visible")
    assert ["rate", "clock", "cpu", "memory"] == [await fact.get_attribute("data-fact") for fact in await shown.all()]
    tops = [
        await page.page.evaluate(f"document.querySelector('{name}').getBoundingClientRect().top")
        for name in (".tape", "#publish-form", ".panel")
    ]
    assert tops == sorted(tops)
    assert tops[1] < PHONE["height"] * 0.8
    assert await page.page.evaluate("document.documentElement.scrollHeight") < PHONE["height"] * 6


@pytest.mark.parametrize(
    "does, directive",
    [
        ("new WebSocket('ws://127.0.0.1:1/')", "connect-src"),
        ("fetch('http://127.0.0.1:1/').catch(() => {})", "connect-src"),
        (
            "document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))",
            "script-src-elem",
        ),
    ],
)
async def test_the_policy_of_the_page(server: ServerProcess, visit: Visiting, does: str, directive: str) -> None:
    """Whatever were to run in the page reaches no other server, and no text in it becomes a script."""
    page = await visit(server.url)
    await moved(page, *KINDS)
    page.expected.append(r"(?i)policy")
    violated = await page.page.evaluate(
        f"""() => new Promise((resolve) => {{
            addEventListener("securitypolicyviolation", (event) => resolve(event.violatedDirective), {{ once: true }});
            try {{ {does}; }} catch {{ }}
        }})"""
    )
    assert directive == violated


async def test_the_server_s_pages_are_linked(server: ServerProcess, visit: Visiting) -> None:
    """The head of the page leads to what the server says of itself, and to what its errors mean."""
    page = await visit(server.url)
    links = await page.page.locator("nav a").all()
    hrefs = [await link.get_attribute("href") for link in links]
    assert ["./compare", "./metrics", "./readyz", "./docs/errors", "#clients", "#read-on"] == hrefs
    await links[3].click()
    await page.page.wait_for_url("**/docs/errors")
    assert "Errors" == await page.page.text_content("h1")


async def test_errors_can_be_read_on_a_phone(server: ServerProcess, visit: Visiting) -> None:
    """Each error's advice has the window's whole width, and nothing is cut off."""
    page = await visit(f"{server.url}docs/errors", viewport=PHONE)
    widths = await page.page.evaluate(
        "() => [...document.querySelectorAll('td:last-child')].map((td) => td.clientWidth)"
    )
    assert len(widths) > 10
    assert min(widths) > 0.85 * PHONE["width"]
    assert PHONE["width"] == await page.page.evaluate("() => document.documentElement.scrollWidth")
    assert "HTTP " in await page.page.evaluate(
        "() => getComputedStyle(document.querySelector('td'), '::before').content"
    )


async def test_the_canvases_are_drawn(server: ServerProcess, visit: Visiting) -> None:
    """Each picture and the tape show something, and the four pictures differ."""
    page = await visit(server.url)
    page.expect_problems("willReadFrequently")  # the test reads what the page only draws
    await moved(page, *KINDS)
    drawn = """() => [...document.querySelectorAll("canvas")].every((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, index) => index % 4 === 3 && value > 0);
    })"""
    await page.until(drawn)
    assert 5 == await page.page.locator("canvas").count()
    # A short poll holds no connection, so most of its picture is bare; the three others hold one all the time.
    await page.until(
        """() => {
          const pictures = [...document.querySelectorAll(".panel canvas")].map((canvas) => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const inked = data.filter((value, index) => index % 4 === 3 && value > 0).length;
            return inked / (canvas.width * canvas.height);
          });
          return pictures[0] < 0.4 && Math.min(...pictures.slice(1)) > 0.5;
        }"""
    )


# -- publishing


async def test_one_publish_arrives_four_times(server: ServerProcess, visit: Visiting) -> None:
    """A publish is acknowledged, and the table shows it at each listener: text, JSON, and a named event too."""
    page = await visit(server.url)
    await moved(page, *KINDS)
    for data, event in (("Hello, all four", ""), ('{"t":1}', ""), ("named", "greeting")):
        await page.page.fill("#publish-form [name=data]", data)
        await page.page.fill("#publish-form [name=event]", event)
        await page.page.press("#publish-form [name=data]", "Enter")
        row = page.page.locator("#arrivals tbody[data-own][data-arrivals='4']", has_text=data)
        await row.wait_for()
        identity = await row.get_attribute("data-message-id")
        result = await page.page.text_content("#publish-result[data-outcome=published]") or ""
        assert re.match(rf"Published as {identity} · durability memory · answered in [\d.]+ m?s\.$", result), result
        assert data == await row.locator(".said").text_content()
        live = [await cell.get_attribute("data-outcome") for cell in await row.locator("[data-arrival]").all()]
        assert ["live"] * 4 == live


async def test_a_refused_publish_is_explained(server: ServerProcess, visit: Visiting) -> None:
    """A refusal is shown with its code, and its link leads to the place that explains it."""
    page = await visit(server.url)
    page.expect_problems(r"^Failed to load resource: the server responded with a status of 400")
    await page.page.fill("#publish-form [name=channel]", "no spaces")
    await page.page.click("#publish-form button")
    await page.page.wait_for_selector("#publish-result[data-outcome=refused]")
    assert "Not published: channel_invalid. " in (await page.page.text_content("#publish-result") or "")
    await page.page.click("#publish-result a")
    await page.page.wait_for_url("**/docs/errors#channel_invalid")
    assert await page.page.locator("#channel_invalid").is_visible()


# -- being cut off


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_listener_catches_up(server: ServerProcess, visit: Visiting, kind: str) -> None:
    """A transport that was cut gets each message that it lacked, once, and shows their number."""
    page = await visit(server.url)
    others = [other for other in KINDS if other != kind]
    await moved(page, *KINDS)
    await toggle(page, kind)
    await in_state(page, "cut", kind)
    still = (await moved(page, *others))[kind]["messages"]  # what came just before the cut is shown by now
    shown = await moved(page, *others, more=OTHERS_GO_ON)
    assert still == shown[kind]["messages"]
    assert re.match(r"Cut\. Messages go on without it: \d+ behind\.$", shown[kind]["resume"])
    await toggle(page, kind)
    caught_up = await resumed(page, kind)
    shown = await moved(page, *KINDS)
    assert [SOUND] * 4 == [panel["books"] for panel in shown.values()]
    assert shown[kind]["messages"] >= still + caught_up


async def test_all_are_cut_and_reconnected(server: ServerProcess, visit: Visiting) -> None:
    """One button cuts all and brings all back; what was published in between comes late to each."""
    page = await visit(server.url)
    await moved(page, *KINDS)
    button = page.page.locator("[data-action=toggle-all]")
    assert "Cut all" == await button.text_content()
    await button.click()
    await in_state(page, "cut", *KINDS)
    assert "Reconnect all" == await button.text_content()
    await page.page.fill("#publish-form [name=data]", "into the dark")
    await page.page.click("#publish-form button")
    row = "#arrivals tbody[data-own][data-arrivals='{}']"
    await page.page.wait_for_selector(row.format(0))
    await button.click()
    await page.page.wait_for_selector(row.format(4))
    late = await page.page.locator(f"{row.format(4)} [data-outcome=late]").count()
    assert 4 == late
    shown = await moved(page, *KINDS)
    assert [SOUND] * 4 == [panel["books"] for panel in shown.values()]
    for panel in shown.values():
        assert re.match(r"Resumed: \d+ messages? caught up, 0 missed, 0 repeated$", panel["resume"])


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_that_breaks_is_resumed(server: ServerProcess, visit: Visiting, reset: bool) -> None:
    """Where the network fails and the server lives, nothing is missed, and nothing repeated by the URL's `last`."""
    async with FaultyPipe(("127.0.0.1", server.port)) as pipe:
        page = await visit(f"http://127.0.0.1:{pipe.port}/")
        page.expect_problems(*UNREACHABLE)
        before = await moved(page, *KINDS, more=3)
        assert pipe.cut(reset=reset) > 0
        await page.until(f"(old) => ({PANELS})().sse.requests > old", before["sse"]["requests"])
        await page.until(f"() => /^Resumed/.test(({PANELS})().sse.resume)")
        shown = await moved(page, *KINDS, more=3)
        assert [SOUND] * 4 == [panel["books"] for panel in shown.values()]
        assert "0 missed, 0 repeated" in shown["sse"]["resume"]
        assert 1 == shown["sse"]["requests"] - before["sse"]["requests"]


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_new_life_of_the_log_is_a_gap(own_server: ServerProcess, visit: Visiting, end: str) -> None:
    """A server that was killed, or stopped, and restarted has lost its log: each listener gets a gap, and goes on."""
    page = await visit(own_server.url)
    page.expect_problems(*UNREACHABLE)
    await moved(page, *KINDS, more=2)
    old = (await panels(page))["sse"]["id"].split("-")[0]
    await (own_server.kill() if end == "kill" else own_server.stop())
    await in_state(page, "waiting", *KINDS)
    await own_server.start()
    await page.until(f"() => Object.values(({PANELS})()).every(({{ resume }}) => /Gap on .*: epoch/.test(resume))")
    shown = await moved(page, *KINDS, more=4)
    for panel in shown.values():
        assert SOUND == panel["books"]
        assert "in order · a gap declared · none repeated" == panel["integrity"]
        assert re.search(rf"Gap on demo\.machine: epoch, from {old}-\d+ on", panel["resume"])
        assert not panel["id"].startswith(f"{old}-")


async def test_a_server_that_is_gone_is_said(own_server: ServerProcess, visit: Visiting) -> None:
    """While there is no server, no listener claims to be reading."""
    page = await visit(own_server.url)
    page.expect_problems(*UNREACHABLE)
    await moved(page, *KINDS)
    await own_server.kill()
    await page.until(
        "() => [...document.querySelectorAll('[data-behind]')]"
        ".every(({ textContent }) => /no server|connecting/.test(textContent))"
    )


async def test_a_server_without_a_demo_says_what_to_do(serving: Serving, visit: Visiting) -> None:
    """Without --dev nothing is published by itself: the page says so, and claims nothing of messages it never had."""
    server = await serving("--broker", "memory://")
    page = await visit(server.url)
    await in_state(page, "live", *KINDS)
    await page.page.wait_for_selector("#quiet:visible")
    assert "oncecast serve --dev" in (await page.page.text_content("#quiet") or "")
    shown = await panels(page)
    assert {"nothing published yet"} == {panel["integrity"] for panel in shown.values()}
    checks = "(p) => getComputedStyle(p, '::before').content"
    marks = [await p.evaluate(checks) for p in await page.page.locator(".integrity").all()]
    assert ['""'] * 4 == marks
    await page.page.click("#publish-form button")
    await page.page.wait_for_selector("#arrivals tbody[data-own][data-arrivals='4']")
    await page.page.wait_for_selector("#quiet:not(:visible)", state="attached")


async def test_a_message_from_before_is_no_gap(serving: Serving, visit: Visiting) -> None:
    """A message older than what a listener began with is not called a gap, as none was declared."""
    server = await serving("--dev")
    first = await visit(server.url)
    await moved(first, *KINDS)
    await first.page.fill("#publish-form [name=data]", "long ago")
    await first.page.click("#publish-form button")
    await first.page.wait_for_selector("#arrivals tbody[data-own][data-arrivals='4']")
    fill = "\n".join(json.dumps({"channel": "demo.machine", "data": {"n": n}}) for n in range(10_000, 10_400))
    await first.page.evaluate(
        "(body) => fetch('/v1/publish', { method: 'POST', body }).then((answer) => answer.text())", fill
    )
    page = await visit(server.url)
    await moved(page, *KINDS)
    await page.page.wait_for_selector("#arrivals tbody", state="attached")
    outcomes = await page.page.evaluate(
        "() => [...document.querySelectorAll('[data-arrival] .when')].map(({ textContent }) => textContent)"
    )
    assert "gap" not in outcomes


async def test_text_of_another_direction_leaves_the_row_alone(server: ServerProcess, visit: Visiting) -> None:
    """A right-to-left text stands in its own embedding: the number and the note keep their places."""
    page = await visit(server.url)
    await moved(page, *KINDS)
    await page.page.fill("#publish-form [name=data]", "\u05e9\u05dc\u05d5\u05dd 1 2 3")
    await page.page.click("#publish-form button")
    row = page.page.locator("#arrivals tbody[data-own][data-arrivals='4']").first
    await row.wait_for()
    assert "BDI" == await row.locator(".said").evaluate("(said) => said.tagName")
    text, note = [await row.locator(name).bounding_box() for name in (".said", ".note")]
    assert text is not None
    assert note is not None
    assert text["x"] + text["width"] <= note["x"] + 1


async def test_behind_a_path_prefix(server: ServerProcess, visit: Visiting) -> None:
    """Behind a proxy that puts the server below a path, the page, its listeners, its form and its links work."""
    async with Prefix("/rt/", server.port) as proxy:
        page = await visit(f"http://127.0.0.1:{proxy.port}/rt/")
        await moved(page, *KINDS)
        await page.page.click("#publish-form button")
        await page.page.wait_for_selector("#arrivals tbody[data-own][data-arrivals='4']")
        assert f"127.0.0.1:{proxy.port}/rt" == await page.page.text_content("[data-fact=server]")
        assert f"http://127.0.0.1:{proxy.port}/rt/v1/" in (await page.page.text_content("#snippets") or "")
        await page.page.click("nav a >> text=Errors")
        await page.page.wait_for_url("**/rt/docs/errors")
        await page.page.goto("about:blank")  # what it still loads, as its icon, has a proxy to the end


# -- looks, keys and names


# The controls in the order of the document; FOCUS says which one has the focus, and whether that can be seen.
CONTROLS = """() => {
  const all = document.querySelectorAll("a[href], button, input, summary, [tabindex='0']");
  globalThis.controls = [...all].filter((control) => control.checkVisibility());
  return globalThis.controls.length;
}"""

FOCUS = """() => {
  const { activeElement: focused } = document;
  const { outlineStyle, outlineWidth } = getComputedStyle(focused);
  return [globalThis.controls.indexOf(focused), outlineStyle !== "none" && outlineWidth !== "0px"];
}"""


async def test_every_control_is_reached_by_tab(server: ServerProcess, visit: Visiting) -> None:
    """Tab goes through all links, buttons and fields, in their order, and each shows that it has the focus."""
    page = await visit(server.url, reduced_motion="reduce")
    controls = await page.page.evaluate(CONTROLS)
    assert controls > 20
    reached = []
    for _ in range(controls):
        await page.page.keyboard.press("Tab")
        reached.append(await page.page.evaluate(FOCUS))
    assert [[index, True] for index in range(controls)] == reached


async def test_a_panel_is_worked_by_keys(server: ServerProcess, visit: Visiting) -> None:
    """Space cuts and reconnects, the focus stays on the button, and its new name says what it does next."""
    page = await visit(server.url)
    await in_state(page, "live", "sse")
    button = page.page.locator("[data-panel=sse] [data-action=toggle]")
    await button.focus()
    await page.page.keyboard.press("Space")
    await in_state(page, "cut", "sse")
    assert "Reconnect Server-Sent Events" == await button.get_attribute("aria-label")
    await page.page.wait_for_selector("#announcer:has-text('Server-Sent Events cut.')", state="attached")
    await page.page.keyboard.press("Space")
    await in_state(page, "live", "sse")


async def test_names_in_the_accessibility_tree(server: ServerProcess, visit: Visiting) -> None:
    """Each button, link, field and picture has a name, and no two buttons the same."""
    page = await visit(server.url)
    await moved(page, *KINDS)
    session = await page.page.context.new_cdp_session(page.page)
    tree = await session.send("Accessibility.getFullAXTree")
    names: dict[str, list[str]] = {}
    for node in tree["nodes"]:
        if not node["ignored"]:
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "textbox", "heading", "image", "article"):
        assert names[role]
        assert "" not in names[role], f"a {role} has no name"
    assert len(names["button"]) == len(set(names["button"]))
    assert {"Cut Short polling", "Cut Long polling", "Cut Server-Sent Events", "Cut WebSocket", "Cut all"} <= set(
        names["button"]
    )
    assert ["Text or JSON", "Channel", "Event"] == [
        re.split(r" sent as| optional", name)[0].strip() for name in names["textbox"]
    ]


async def test_lines_are_copied(server: ServerProcess, visit: Visiting) -> None:
    """Each way to listen and to publish has its lines; a button copies them as they are, with this server's address."""
    page = await visit(server.url, permissions=["clipboard-read", "clipboard-write"])
    snippets = await page.page.locator("#snippets .snippet").all()
    titles = await page.page.locator("#snippets h3").all_text_contents()
    named = ["Publish", "Short poll", "Long poll", "SSE", "EventSource", "WebSocket", "oncecast.js", "Python"]
    assert [*named, "oncecast sub", "oncecast pub"] == titles
    assert len(titles) == len(snippets)
    for snippet in snippets:
        button = snippet.locator("button")
        await button.click()
        await page.page.wait_for_function(
            "(button) => button.textContent === 'Copied'", arg=await button.element_handle()
        )
        copied = await page.page.evaluate("() => navigator.clipboard.readText()")
        assert await snippet.locator("code").text_content() == copied
        assert f"127.0.0.1:{server.port}" in copied


async def test_lines_keep_their_shape(server: ServerProcess, visit: Visiting) -> None:
    """On a phone a line that is too long is scrolled, by keys too, and never broken; a shorter one is no stop."""
    page = await visit(server.url, viewport=PHONE)
    frames = await page.page.locator("#snippets pre").all()
    await page.page.wait_for_selector("#snippets pre[tabindex='0']")
    stops = []
    for frame in frames:
        text = await frame.text_content() or ""
        lines = await frame.evaluate(LINES)
        assert len(text.split("\n")) == lines
        wide = await frame.evaluate("(pre) => pre.scrollWidth > pre.clientWidth")
        assert wide == (await frame.get_attribute("tabindex") == "0") == (await frame.get_attribute("role") == "region")
        stops += [frame] if wide else []
    assert 0 < len(stops) < len(frames)
    assert await stops[0].get_attribute("aria-label")
    await stops[0].focus()
    await page.page.keyboard.press("ArrowRight")
    await page.page.wait_for_function("(pre) => pre.scrollLeft > 0", arg=await stops[0].element_handle())
    await page.page.set_viewport_size({"width": 1440, "height": 900})
    await page.page.wait_for_selector("#snippets:not(:has([tabindex]))")


async def test_commands_are_where_make_puts_them(server: ServerProcess, visit: Visiting) -> None:
    """The lines for the shell run in a checkout, and the page says what they are elsewhere."""
    page = await visit(server.url)
    lines = [await code.text_content() or "" for code in await page.page.locator("#snippets code").all()]
    assert [".venv/bin/oncecast sub", ".venv/bin/oncecast pub"] == [line[:22] for line in lines if line[:1] == "."]
    assert "leave out .venv/bin/" in (await page.page.text_content(".lines .section-head") or "")


async def test_nothing_is_wider_than_the_window(server: ServerProcess, visit: Visiting) -> None:
    """There is nothing to scroll sideways, with long data in the table, a listener cut, and the notes open."""
    page = await visit(server.url, viewport={"width": WIDTHS[0], "height": 740})
    await moved(page, *KINDS)
    await page.page.fill("#publish-form [name=data]", "unbroken" * 40)
    await page.page.click("#publish-form button")
    await page.page.wait_for_selector("#arrivals tbody[data-own][data-arrivals='4']")
    await page.page.click("summary")
    await toggle(page, "websocket")
    await in_state(page, "cut", "websocket")
    needed = []
    for width in WIDTHS:
        await page.page.set_viewport_size({"width": width, "height": 740})
        needed.append(await page.page.evaluate("() => document.documentElement.scrollWidth"))
    assert WIDTHS == tuple(needed)


CONTRAST = """() => {
  const style = getComputedStyle(document.body);
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number)
    .map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, index) => sum + v * [0.2126, 0.7152, 0.0722][index], 0);
  const [ink, root] = [light(style.color), getComputedStyle(document.documentElement).backgroundColor];
  const paper = light(style.backgroundColor === "rgba(0, 0, 0, 0)" ? root : style.backgroundColor);
  return { ink, paper, ratio: (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05) };
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_light_and_dark(server: ServerProcess, visit: Visiting, scheme: str) -> None:
    """The page follows the system's choice, with text that can be read on its ground (WCAG 2.2 §1.4.6)."""
    page = await visit(server.url, color_scheme=scheme)
    await moved(page, *KINDS)
    seen = await page.page.evaluate(CONTRAST)
    assert ("dark" if seen["paper"] < seen["ink"] else "light") == scheme
    assert seen["ratio"] >= 7
