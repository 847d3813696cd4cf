"""The contract that every broker must keep, as checks to run over any implementation: `check_broker`.

A check is a function of one `BrokerBench`: a started broker, and a record of its deliveries and answers. `CHECKS` holds
the checks by name, so that pytest can show each as a test of its own:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name): check_broker(lambda: Lab(make), name)

A `Lab` is one log. Its `make` returns a broker for one more node on the log. For a broker that answers later, `driver`
runs its loop. Changes that only the owner of a log can make, such as to replace it by an empty one, are hooks of the
lab. A clause is skipped if its hook is missing, or if it is about a capability that the broker does not have.

A broker may trim while it is checked: messages up to the marks of its pages are not expected.

To add a clause to the contract, write a check and add it to `CHECKS`. The checks are plain asserts and need no plugin.
A failed one raises `BrokerFailed`, whose text is the clause.
"""

from __future__ import annotations

from collections.abc import Callable

from . import broker_history as history
from . import broker_nodes as nodes
from . import broker_publishing as publishing
from .broker_bench import BrokerBench, BrokerFailed, Lab, expect

BrokerCheck = Callable[[BrokerBench], None]

CHANNELS = ("a", "b", "c", "d", "x", "c0", "c1", "b:1", "c@x")  # wanted before each check

CHECKS: dict[str, BrokerCheck] = {
    check.__name__: check
    for check in (
        publishing.names_itself,
        publishing.numbers_what_it_appends,
        publishing.keeps_the_order,
        publishing.delivers_its_own,
        publishing.keeps_the_trace,
        publishing.delivers_before_it_answers,
        publishing.answers_in_order,
        publishing.answers_nothing_to_nothing,
        publishing.appends_a_key_once,
        publishing.keeps_keys_apart,
        publishing.appends_a_key_once_in_a_batch,
        publishing.times_never_go_back,
        publishing.refuses_once_closed,
        publishing.refuses_until_started,
        publishing.answers_all_when_it_stops,
        publishing.takes_any_key,
        publishing.takes_any_channel,
        publishing.takes_any_size,
        publishing.serves_many_channels,
        history.reads_what_it_delivered,
        history.reads_on_page_by_page,
        history.bounds_a_page_by_bytes,
        history.finds_every_start,
        history.opens_where_it_stands,
        history.refuses_reads_once_closed,
        history.reads_whatever_number_is_asked,
        history.answers_many_reads,
        history.marks_what_it_trims,
        nodes.shares_one_log,
        nodes.follows_without_a_hole,
        nodes.delivers_what_is_wanted,
        nodes.advances_without_a_message,
        nodes.tells_of_another_log,
        nodes.tells_of_a_hole,
        nodes.goes_on_past_damage,
    )
}


def check_broker(factory: Callable[[], Lab], name: str | None = None) -> None:
    """Check a broker against the contract, or against its clause `name`. Raises `BrokerFailed`.

    `factory` makes a fresh lab for each check. A check stops its brokers and closes its lab.
    """
    for check in CHECKS.values() if name is None else (CHECKS[name],):
        lab = factory()
        try:
            bench = BrokerBench(lab.make(), lab)
            try:
                bench.start()
                bench.want(*CHANNELS)
                check(bench)
            finally:
                for started in (*bench.others, bench):
                    started.stop()
        finally:
            lab.close()


__all__ = ["CHECKS", "BrokerBench", "BrokerCheck", "BrokerFailed", "Lab", "check_broker", "expect"]
