"""What the trial of a booted machine sees, and that it can fail."""

from __future__ import annotations

import re

from .booted import EXPECTED, HERE, compare, seen


def test_what_is_seen_is_compared() -> None:
    """Each thing has to be there, and to be as expected; a line that is none is left out."""
    text = "".join(f"{name}={value}\n" for name, value in EXPECTED.items())
    assert [] == compare(seen(f"a warning\n{text}"))
    assert ['stuck: \'"data":"hello" 1\', and not \'"data":"hello" 2\''] == compare(
        seen(text.replace('stuck="data":"hello" 2', 'stuck="data":"hello" 1'))
    )
    assert ["ended: 'nothing', and not 'success'"] == compare(seen(text.replace("ended=success\n", "")))


def test_the_trial_says_all_of_it() -> None:
    """The script that runs in the machine has a line for each."""
    assert {*EXPECTED} == {*re.findall(r"^see (\w+)", (HERE / "trial.sh").read_text("utf-8"), re.MULTILINE)}
