"""The log: each line has its time, and a worker's its number."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from oncecast.server.process.log import adopt_log, begin_log
from oncecast.server.settings import Settings

Begin = Callable[[int | None, Settings], None]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Begins the log, on a root of the loggers that is the test's own."""
    ours = logging.getLogger("oncecast")  # first: a logger that is made now has the root of now
    own = logging.RootLogger(logging.WARNING)
    monkeypatch.setattr(logging, "root", own)
    monkeypatch.setattr(logging.Logger, "root", own)
    monkeypatch.setattr(logging.Logger.manager, "root", own)
    monkeypatch.setattr(ours, "parent", own)
    level = ours.level
    hook = sys.excepthook

    def begin(worker: int | None, settings: Settings) -> None:
        own.handlers.clear()  # pytest's own
        begin_log(worker, settings)

    yield begin
    sys.excepthook = hook
    ours.setLevel(level)


def log(level: int, text: str, *, error: Exception | None = None) -> None:
    """Log by the server's logger."""
    logging.getLogger("oncecast").log(level, text, exc_info=error)


@pytest.mark.parametrize("worker, whose", [(None, ""), (2, "[2] ")])
def test_a_line(worker: int | None, whose: str, begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """A line has the time in UTC with milliseconds, the worker, the level, the logger and the text."""
    begin(worker, Settings())
    record = logging.LogRecord("n", logging.WARNING, "", 0, "text", (), None)
    record.created = 1769903999.1239
    logging.root.handle(record)
    assert f"2026-01-31T23:59:59.123Z {whose}WARNING n: text\n" == capsys.readouterr().err


def test_a_line_of_json(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """A record is one line of ASCII, whatever its text has; a traceback is a field of it."""
    begin(2, Settings(log="json"))
    log(logging.WARNING, 'two\nlines "ü"')
    try:
        raise OSError("it has\nfailed")
    except OSError as error:
        log(logging.ERROR, "text", error=error)
    one, other = capsys.readouterr().err.splitlines()
    assert one.isascii()
    read = json.loads(one)
    assert read.pop("time").endswith("Z")
    expected = {"log": "server", "worker": 2, "level": "warning", "logger": "oncecast", "message": 'two\nlines "ü"'}
    assert expected == read
    assert list(json.loads(one)) == ["time", *expected]
    assert json.loads(other)["error"].endswith("OSError: it has\nfailed")


def test_a_record_is_one_line_of_text(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """With its traceback, and of at most 4096 bytes: the begin of the message is kept, and the end of the traceback."""
    begin(None, Settings())
    for text in ("two\r\nlines", "begin" + "ü" * 9000):
        try:
            raise OSError("x" * 9000 + "ü\nthe cause")
        except OSError as error:
            log(logging.ERROR, text, error=error)
    log(logging.ERROR, "half \ud800 a pair")
    lines = capsys.readouterr().err.split("\n")
    assert [1, 1, 1, 0] == [len(line.split("ERROR oncecast: ")) - 1 for line in lines]
    assert all(len(line.encode()) < 4096 for line in lines)
    assert "ERROR oncecast: two\\r\\nlines\\nTraceback (most recent call last):\\n  File " in lines[0]
    assert "ERROR oncecast: beginü" in lines[1]
    assert lines[0].endswith("ü\\nthe cause")
    assert lines[1].endswith("ü\\nthe cause")
    assert lines[2].endswith("half \\ud800 a pair")


def test_a_traceback_in_development(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads it at once: it has lines of its own. The exception that ends a process has, too."""
    begin(None, Settings(dev=True))
    try:
        raise OSError("the cause")
    except OSError as error:
        log(logging.ERROR, "text", error=error)
    lines = capsys.readouterr().err.splitlines()
    assert ("ERROR oncecast: text", "OSError: the cause") == (lines[0].split(" ", 1)[1], lines[-1])
    sys.excepthook(OSError, OSError("it has crashed"), None)
    assert "OSError: it has crashed\n" == capsys.readouterr().err


def test_a_long_line_of_json(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """It has at most 4096 bytes: a message keeps its begin, a traceback its end."""
    begin(None, Settings(log="json"))
    try:
        raise OSError("x" * 9000 + "the cause")
    except OSError as error:
        log(logging.ERROR, "begin" + "ü" * 9000, error=error)
    line = capsys.readouterr().err
    assert 4096 >= len(line)
    assert json.loads(line)["message"].startswith("begin")
    assert json.loads(line)["error"].endswith("the cause")


@pytest.mark.parametrize("level, expected", [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")])
def test_the_level(level: str, expected: str, begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """What is below the level is left out; of other libraries' logs all below `info` is."""
    begin(None, Settings(log_level=level))  # type: ignore[arg-type]
    for number, text in ((10, "d"), (20, "i"), (30, "w"), (40, "e")):
        log(number, text)
    logging.getLogger().debug("a library's")
    assert expected == "".join(line[-1] for line in capsys.readouterr().err.splitlines())


def test_the_form_changes(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that are read again apply to the next line."""
    begin(None, Settings())
    log(logging.INFO, "one")
    adopt_log(Settings(log="json", log_level="warning"))
    log(logging.INFO, "two")
    log(logging.WARNING, "three")
    text, line = capsys.readouterr().err.splitlines()
    assert text.endswith("INFO oncecast: one")
    assert "three" == json.loads(line)["message"]


def test_a_crash_is_one_line(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """The exception that ends a process is a record as any other."""
    begin(None, Settings())
    sys.excepthook(OSError, OSError("it has\ncrashed"), None)
    assert capsys.readouterr().err.endswith("the process ends by an exception\\nOSError: it has\\ncrashed\n")


def test_a_crash_as_json(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    """The exception that ends a process is one line, too."""
    begin(None, Settings(log="json"))
    sys.excepthook(OSError, OSError("it has crashed"), None)
    line = json.loads(capsys.readouterr().err)
    assert ("critical", "OSError: it has crashed") == (line["level"], line["error"])
