"""The judges of the soak, which see each fault, and its graph; `make soak` and `make proof` run it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable

import pytest

from . import soak
from .client_oracle import Wrong
from .soak_crowd import KINDS, Verdict, place_of
from .soak_graph import render_soak
from .soak_judge import Fit, Follower, Skip, fit, late, lost_in, step_of
from .soak_report import Mark, Moment, Report, merged, windows
from .soak_site import NODES, Usage

SUBSCRIBERS = 16


# The judge of a subscriber ---------------------------------------------------------------------------------------


def given(*numbers: int) -> Follower:
    """A subscriber of channel 7 that was given these numbers, each at ten times its place in the log."""
    follower = Follower(7)
    for number in numbers:
        follower.message(f"e-{number * 10}", 7, number)
    return follower


@pytest.mark.parametrize(
    "cursor, channel, number",
    [("e-40", 7, 4), ("e-20", 7, 2), ("e-30", 7, 2), ("e-15", 7, 3), ("e-30", 8, 3)],
    ids=["lost", "repeated", "repeated with another id", "out of order", "of another channel"],
)
def test_each_fault_of_a_message_is_seen(cursor: str, channel: int, number: int) -> None:
    """What is right after two messages is the third one, and nothing else."""
    given(1, 2, 3)
    with pytest.raises(Wrong):
        given(1, 2).message(cursor, channel, number)


@pytest.mark.parametrize("reason, missed_from", [("expired", "e-21"), ("unknown", "e-20")])
def test_each_fault_of_a_gap_is_seen(reason: str, missed_from: str) -> None:
    """A gap is a failover's, and does not name what has come."""
    with pytest.raises(Wrong):
        given(1, 2).gap(reason, missed_from, "e-30", "e-30")


def test_a_gap_excuses_what_it_names() -> None:
    """What a failover has lost is in the gap; the message before it may come again, once."""
    follower = given(1, 2)
    follower.gap("unknown", "e-21", "e-35", "e-35")
    follower.message("e-40", 7, 4)
    assert [Skip(7, 3, 3, 21, 35)] == follower.skips
    follower.gap("unknown", "e-41", None, "e-50")
    follower.message("e-60", 7, 4)
    assert (2, 1) == (follower.gaps, follower.again)
    with pytest.raises(Wrong):
        follower.message("e-70", 7, 4)


def test_what_is_lost_has_to_be_in_the_gap() -> None:
    """A number that is missing, and was acknowledged outside of the gap, is lost in silence."""
    assert {(0, 2)} == lost_in([Skip(0, 2, 2, 15, 25)], [[10, 20, 30]])
    with pytest.raises(Wrong):
        lost_in([Skip(0, 2, 3, 15, 25)], [[10, 20, 30]])


def test_each_channel_has_every_transport() -> None:
    """Four subscribers that follow each other have one channel, and are of four kinds."""
    places = [place_of(number, 3) for number in range(24)]
    assert dict.fromkeys(KINDS, 6) == Counter(kind for kind, _ in places)
    assert all(set(KINDS) == {kind for kind, found in places if found == channel} for channel in range(3))


# Figures ---------------------------------------------------------------------------------------------------------


def test_a_step_between_two_lives_is_no_growth() -> None:
    """Each piece has a level of its own, and they have one slope."""
    flat = [[(0.0, 10.0), (1.0, 10.0)], [(5.0, 20.0), (7.0, 20.0)]]
    assert Fit(0.0, 15.0, 2.0) == fit(flat)
    growing = fit([[(0.0, 10.0), (1.0, 12.0)], [(5.0, 20.0), (7.0, 24.0)], []])
    assert growing is not None
    assert 2.0 == pytest.approx(growing.slope)
    assert 1.2 == pytest.approx(growing.growth(10) * growing.mean / 16.5, rel=0.1)
    assert fit([[], [(1.0, 1.0)]]) is None


def test_a_delay_is_known_to_a_tenth() -> None:
    """The steps of delays are small enough to tell which share is how late."""
    delays = Counter(step_of(number / 1000) for number in range(1, 101))
    assert late(delays, 0.5) == pytest.approx(0.05, rel=0.1)
    assert late(delays, 1) == pytest.approx(0.1, rel=0.1)
    assert 0.0 == late({}, 0.99)


def test_windows_lie_between_what_happens() -> None:
    """A window begins once the nodes are warm, and there is none where the next mark comes before."""
    marks = [Mark("restart", 20, 25), Mark("failover", 60, 62), Mark("restart", 70, 75)]
    assert [(10, 20), (35, 60), (85, 100)] == windows(marks, 100, 10)


def report_of(memory: Callable[[int], float], descriptors: Callable[[int], float]) -> Report:
    """A report of twenty minutes with two restarts, in which the nodes take what these say at each second."""
    report = Report(SUBSCRIBERS, 4, 50, 1, warm=60, seconds=1200.0)
    report.marks = [Mark("restart", 400, 410), Mark("restart", 800, 810)]
    for at in range(1, 1201):
        usage = None if 400 < at < 405 else Usage(int(memory(at)), int(descriptors(at)))
        report.moments.append(Moment(float(at), [usage] * NODES, 100, Counter({step_of(0.01): 100})))
    return report


def test_what_is_flat_is_not_wrong() -> None:
    """Noise of a percent is no growth."""
    report = report_of(lambda at: 50e6 + at % 7 * 1e5, lambda at: 100 + at % 3)
    report.idle = [(17, 17), (17, 18), (17, 16)]
    assert [] == report.faults()
    assert "memory and descriptors are flat" in str(report)


@pytest.mark.parametrize(
    "memory, descriptors, fault",
    [
        (lambda at: 50e6 + at % 400 * 1e4, lambda at: 100, "memory in a window grew"),
        (lambda at: 50e6 + at // 400 * 2e6, lambda at: 100, "memory from window to window grew"),
        (lambda at: 50e6, lambda at: 1000 + at % 400 / 10, "descriptors grew"),
    ],
    ids=["memory", "memory from life to life", "descriptors"],
)
def test_each_kind_of_growth_is_seen(
    memory: Callable[[int], float], descriptors: Callable[[int], float], fault: str
) -> None:
    """A leak within a life, one from life to life, and one of descriptors."""
    assert [fault] == [text[: len(fault)] for text in report_of(memory, descriptors).faults()]


@pytest.mark.parametrize(
    "verdict, marks, fault",
    [
        (Verdict(gaps=1, first_gap=5.0), [], "1 gaps, the first before any failover"),
        (Verdict(gaps=1, first_gap=5.0), [Mark("failover", 6, 7)], "1 gaps, the first before any failover"),
        (Verdict(wrong=3, wrongs=["a"]), [], "and 2 more"),
    ],
    ids=["a gap without a failover", "a gap before the failover", "what is not told"],
)
def test_what_subscribers_met_is_told(verdict: Verdict, marks: list[Mark], fault: str) -> None:
    """A gap has to have a cause, and faults are counted where they are not told one by one."""
    report = Report(4, 1, 1, 1, warm=1, verdict=verdict, marks=marks, wrongs=list(verdict.wrongs))
    assert report.faults()[-1].startswith(fault)


def test_a_descriptor_that_stays_is_seen() -> None:
    """Once every client has gone, a node has no more than before the first."""
    report = Report(4, 1, 1, 1, warm=1, idle=[(17, 17), (17, 20)])
    assert ["node 2 has 20 descriptors without a client, and had 17"] == report.faults()


def test_verdicts_are_summed() -> None:
    """What two processes have seen is one verdict, and the first gap is the earlier one."""
    one = merged([Verdict(ends={"a": 1}, gaps=1, first_gap=9.0), Verdict(ends={"a": 2, "b": 1}, gaps=2, first_gap=8.0)])
    assert ({"a": 3, "b": 1}, 3, 8.0) == (one.ends, one.gaps, one.first_gap)


def test_the_plan_scales() -> None:
    """An hour has eleven restarts, five minutes apart, and the failover between two of them; a short run has fewer."""
    hour = soak.Plan(3600).events()
    assert [*range(300, 3600, 300)] == [at for at, kind in hour if kind == "restart"]
    assert [1950] == [at for at, kind in hour if kind == "failover"]
    assert [(30, "restart"), (60, "restart"), (75, "failover"), (90, "restart")] == soak.Plan(120).events()


def test_the_graph_is_whole() -> None:
    """It is XML, has a line for each node and a mark for each event in each panel, and breaks where a node was away."""
    report = report_of(lambda at: 50e6, lambda at: 100)
    report.marks.append(Mark("failover", 900, 905))
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(render_soak(report))
    rects = Counter(each.get("class") for each in root.iter(f"{svg}rect"))
    assert {"ground": 1, "restart": 8, "failover": 4} == rects
    first = [each for each in root.iter(f"{svg}path") if each.get("class") == "line n1"][1]
    assert 2 == (first.get("d") or "").count("M")
