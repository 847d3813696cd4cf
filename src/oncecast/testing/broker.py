"""The contract that every broker must keep, as checks to run over any implementation: `check_broker`.

A check is a function of one `BrokerBench`: a started broker, and a record of its deliveries and answers. `CHECKS` holds
the checks by name, so that pytest can show each as a test of its own:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name): check_broker(lambda: Lab(make), name)

A `Lab` is one log: `make` returns a broker for one more node on it. A broker that answers later is given a `driver`
that runs its loop. What only the log's owner can do, such as to put an empty log in its place, is a hook of the lab; a
clause whose hook is missing, or that is about what the broker's capabilities rule out, has nothing to hold.

What a broker trims while it is checked is left out of what is expected, by the marks that its pages have.

To add a clause to the contract, write a check and put it into `CHECKS`. The checks are plain asserts and need no
plugin; a failed one raises `BrokerFailed`, whose text is the clause.
"""

from __future__ import annotations

from collections.abc import Callable

from . import broker_history as history
from . import broker_nodes as nodes
from . import broker_publishing as publishing
from .broker_bench import BrokerBench, BrokerFailed, Lab, expect

BrokerCheck = Callable[[BrokerBench], None]

CHANNELS = ("a", "b", "c", "d", "x", "c0", "c1", "b:1", "c@x")  # wanted before each check; a check wants its others

CHECKS: dict[str, BrokerCheck] = {
    check.__name__: check
    for check in (
        publishing.names_itself,
        publishing.numbers_what_it_appends,
        publishing.keeps_the_order,
        publishing.delivers_its_own,
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
    """Hold a broker to the contract, or to the one clause of it that `name` says. Raises `BrokerFailed`.

    `factory` makes a fresh lab for each check; the check stops what it has started, and closes the lab.
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
