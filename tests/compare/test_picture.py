"""The picture: it is XML that stands alone, with a mark for each message and each empty answer."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec

from oncecast.compare.picture import render_picture
from oncecast.compare.report import ORDER, LaneMarks
from tests.compare.conftest import blocked, report_of

SVG = "{http://www.w3.org/2000/svg}"


def test_marks() -> None:
    """Each lane has its dots and its rings, within the picture."""
    marks = {name: LaneMarks([(0.5, 0.001), (9.0, 0.5)], [1.0] * n) for n, name in enumerate(ORDER)}
    root = ElementTree.fromstring(render_picture(report_of(), marks))
    lanes = {each.get("class"): each for each in root.iter(f"{SVG}g")}
    assert list(ORDER) == list(lanes)
    for n, name in enumerate(ORDER):
        paths = {path.get("class"): path.get("d") or "" for path in lanes[name].iter(f"{SVG}path")}
        places = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", paths["dots"])]
        assert 2 == len(places)
        assert places[0][0] < places[1][0]
        assert places[0][1] > places[1][1]
        assert n == paths.get("rings", "").count("M")


def test_it_stands_alone_and_says_itself_in_words() -> None:
    """It has a title and a description, names no other place, and what a server said is no markup."""
    report = msgspec.structs.replace(report_of(sse=blocked("sse", "no")), server="http://<i>&")
    text = render_picture(report, {})
    root = ElementTree.fromstring(text)
    assert report.describes == root.findtext(f"{SVG}title")
    assert "SSE: nothing arrived" in (root.findtext(f"{SVG}desc") or "")
    assert "prefers-color-scheme:dark" in text
    assert {"http://www.w3.org/2000/svg"} == set(re.findall(r'="(http[^"]*)"', text))
    assert "<script" not in text
