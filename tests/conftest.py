"""What holds for every test: its marks by where it stands, no deadline for an example of Hypothesis, SIGINT, which
some shells let their jobs ignore, that it leaves no transport open (`open_transports.py`), and that a collection of
garbage does not visit the tests themselves. And what tests of all folders share: the real servers of brokers, and the
wheel.

Owns `MARKS`, the table that `make quick` selects by and by which the long tests come first. To mark a test, add its
file or folder, not a decorator.
"""

from __future__ import annotations

import gc
import os
import re
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.brokers.servers import Servers
from tests.open_transports import pytest_configure as pytest_configure
from tests.open_transports import pytest_runtest_teardown as pytest_runtest_teardown
from tests.package_rig import ROOT, built

signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes by the wall clock says more about the tests that run beside it.
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")

Case = TypeVar("Case")
WORDS = re.compile(r"[^\s()]+")
HERE = Path(__file__).parent
MARKS: Mapping[str, tuple[str, ...]] = {
    "browser": (
        "examples",
        "proof/test_tabs.py",
        "proxies/test_clients.py",
        "proxies/test_http2.py",
        "web/test_admin.py",
        "web/test_client.py",
        "web/test_compare_page.py",
        "web/test_docs_programs.py",
        "web/test_front_ends.py",
        "web/test_htmx.py",
        "web/test_native.py",
        "web/test_obstacles.py",
        "web/test_secure.py",
        "web/test_site.py",
        "web/test_start_page.py",
        "web/test_tokens.py",
    ),
    "npm": (
        "examples/test_editor.py",
        "http/documents/test_asyncapi.py",
        "peers/test_node.py",
        "test_javascript.py",
        "test_npm_package.py",
        "test_package.py",
        "web/test_front_ends.py",
        "web/test_htmx.py",
        "web/test_modules.py",
    ),
    "servers": (
        "asgi/test_move_in.py",
        "asgi/test_servers.py",
        "brokers/followed/test_faults.py",
        "brokers/followed/test_secure.py",
        "brokers/kafka",
        "brokers/nats",
        "brokers/rabbitmq",
        "brokers/redis",
        "brokers/test_how_to.py",
        "brokers/test_operable.py",
        "brokers/test_starting.py",
        "cli/test_broker.py",
        "doctor/test_examination.py",
        "http/test_users.py",
        "proxies",
        "test_docs_shell.py",
        "test_monitoring.py",
    ),
    "bare": (  # other tests cover the code of these
        "asgi/test_contract.py",
        "asgi/test_examples.py",
        "asgi/test_move_in.py",
        "asgi/test_servers.py",
        "brokers/test_how_to.py",
        "client/test_obstacles.py",
        "core/test_hub_model.py",
        "core/test_log_model.py",
        "core/test_node_model.py",
        "doctor/test_examination.py",
        "examples",
        "proof",
        "protocol/test_contract_on_brokers.py",
        "proxies",
        "server/framing/test_strict.py",
        "server/test_dead_peers.py",
        "server/test_durable.py",
        "server/test_read_budget.py",
        "server/test_unread.py",
        "test_docs_shell.py",
        "test_hundred_thousand.py",
        "test_installed.py",
        "test_npm_package.py",
        "test_package.py",
        "testing/test_how_to.py",
        "web/test_admin.py",
        "web/test_client.py",
        "web/test_compare_page.py",
        "web/test_docs_programs.py",
        "web/test_front_ends.py",
        "web/test_htmx.py",
        "web/test_native.py",
        "web/test_obstacles.py",
        "web/test_secure.py",
        "web/test_start_page.py",
        "web/test_tokens.py",
        "wire/test_ws_reader.py",
    ),
    "slow": (
        "asgi/hosting/test_processes.py",
        "asgi/test_celery.py",
        "asgi/test_contract.py",
        "asgi/test_examples.py",
        "asgi/test_move_in.py",
        "asgi/test_servers.py",
        "benchmarks",
        "brokers/test_how_to.py",
        "cli/test_compare.py",
        "cli/test_demo.py",
        "cli/test_processes.py",
        "client/test_obstacles.py",
        "client/test_renewal.py",
        "compare/test_measurement.py",
        "core/test_hub_model.py",
        "core/test_log_model.py",
        "core/test_node_model.py",
        "doctor/test_examination.py",
        "proof",
        "protocol/test_contract_on_brokers.py",
        "proxies",
        "server/framing/test_strict.py",
        "server/process/test_supervisor.py",
        "server/test_bad_input.py",
        "server/test_dead_peers.py",
        "server/test_durable.py",
        "server/test_hostile.py",
        "server/test_machine_faults.py",
        "server/test_read_budget.py",
        "server/test_run.py",
        "server/test_secrets.py",
        "server/test_unread.py",
        "server/tls/test_serving.py",
        "test_docs_shell.py",
        "test_hundred_thousand.py",
        "test_installed.py",
        "testing/test_how_to.py",
    ),
}


@cache  # a file has hundreds of tests
def marks_of(path: Path) -> set[str]:
    """Return the marks of the test file at `path`, which is relative to this folder."""
    names = {path.as_posix(), *(parent.as_posix() for parent in path.parents)}
    return {mark for mark, places in MARKS.items() if not names.isdisjoint(places)}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a file, unread, whose tests `-m` does not ask for: each process that runs tests reads the others."""
    wanted = config.option.markexpr
    if collection_path.suffix != ".py" or not set(WORDS.findall(wanted)) <= {*MARKS, "and", "or", "not"}:
        return None
    marks = marks_of(collection_path.relative_to(HERE))
    return None if is_wanted(marks, wanted) else True


def is_wanted(marks: Set[str], expression: str) -> bool:
    """Return whether an expression of `-m`, which has names of `MARKS` only, asks for what has these marks."""
    return not expression or bool(eval(expression, {"__builtins__": {}}, {name: name in marks for name in MARKS}))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Give each test the marks of its file and of the folders above it, and put what is left in order."""
    for item in items:
        for mark in marks_of(item.path.relative_to(HERE)):
            item.add_marker(mark)
    yield
    long = {item for item in items if any(item.get_closest_marker(mark) for mark in MARKS)}
    items[:] = dealt(items, long, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def dealt(items: Sequence[Case], long: Set[Case], workers: int) -> list[Case]:
    """Return the tests in an order in which each worker begins with its share of the long ones.

    pytest-xdist cuts the list into one piece for each worker, and a worker that has done its piece takes tests from the
    end of another's. With short tests there, the workers end together. A piece has its long tests in their own order,
    so that those of one folder, which need the same server, stay together.
    """
    if workers < 2:
        return list(items)
    first, rest = [item for item in items if item in long], [item for item in items if item not in long]
    order: list[Case] = []
    for left in range(workers, 0, -1):
        share, piece = len(first) // left, (len(first) + len(rest)) // left
        order += first[:share] + rest[: piece - share]
        del first[:share], rest[: piece - share]
    return order


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what the collected tests hold out of the garbage collector's sight.

    That is half a million objects, which no test frees. A full collection visits them in 0.2 s: 32 s of CPU in
    `test_hostile.py` alone.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The real servers of brokers, of which each kind is started for the first test that needs it."""
    with ExitStack() as stack:
        yield Servers(tmp_path_factory.mktemp("servers"), stack)


@pytest.fixture(scope="session")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built by the backend that pyproject.toml names."""
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))
