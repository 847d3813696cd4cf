"""The contract of a broker: the example that its module shows is what happens."""

from __future__ import annotations

import doctest

from oncecast.brokers import base


def test_the_example_is_what_happens() -> None:
    """Each line of the example in the module's docstring gives what stands below it."""
    results = doctest.testmod(base)
    assert (0, True) == (results.failed, results.attempted > 5)
