"""The log in a file: what is appended, read, trimmed and forgotten; lives and holes; files that are not ours."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.brokers.base import NUMBERS_A_SECOND, Opening
from oncecast.brokers.sqlite import file as file_module
from oncecast.brokers.sqlite import store as sqlite_store
from oncecast.brokers.sqlite import trims as sqlite_trims
from oncecast.brokers.sqlite.file import File, check_file
from oncecast.brokers.sqlite.store import Appended, Store
from oncecast.errors import ConfigurationError
from oncecast.message import EARLIEST, LATEST, Cursor, Draft, Kind, Mark, Page, Retention, Start, StartKind
from oncecast.testing.history_broker import HistoryBroker

NOW = 1_764_000_000.0
DAY = 86400.0
ENOUGH = 1 << 30


class Bench:
    """A store on a file of its own, and a clock that the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = NOW
        self.seen = 0
        self.stores: list[Store] = []

    def open(self, *, alone: bool = True) -> tuple[Store, Opening]:
        """Open the file, as its only process unless `alone` is False."""
        store = Store(self.path, durability="process")
        self.stores.append(store)
        opening = store.begin("life", self.now, alone=alone)
        self.seen = opening.head
        return store, opening

    def append(self, store: Store, *drafts: Draft | str, seen: int | None = None) -> Appended:
        """Append drafts; a string is one message for each of its letters, to the channel that the letter names."""
        made = [Draft(c, b"x") for d in drafts if isinstance(d, str) for c in d]
        made += [draft for draft in drafts if isinstance(draft, Draft)]
        appended = store.append(made, self.now, DAY, self.seen if seen is None else seen)
        if appended.receipts:
            self.seen = max(self.seen, *(receipt.seq for receipt in appended.receipts))
        return appended

    def close(self) -> None:
        """Close all that were opened."""
        for store in self.stores:
            store.close()
        self.stores.clear()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A file that is not there yet."""
    made = Bench(tmp_path / "log.db")
    yield made
    made.close()


def after(seq: int) -> Start:
    """The start right after a number."""
    return Start(StartKind.CURSOR, Cursor("life", seq))


def read(store: Store, channels: str, start: Start, limit: int = ENOUGH, max_bytes: int = ENOUGH) -> Page:
    """Read channels with a letter each."""
    return store.pages.read(tuple(channels), start, limit, max_bytes)


def seqs(page: Page) -> list[int]:
    """The numbers on a page."""
    return [message.seq for message in page.messages]


def keep(messages: int = 10**9, seconds: float = 1e12) -> Callable[[str], Retention]:
    """A policy for all channels."""
    return lambda channel: Retention(messages, seconds)


def fill(bench: Bench, text: str) -> Store:
    """A store with a message for each letter, a second apart."""
    store, _ = bench.open()
    for letter in text:
        bench.append(store, letter)
        bench.now += 1
    return store


# -- the file


def test_a_new_file_is_empty(bench: Bench) -> None:
    """It has the epoch that it was made with, no messages and no holes."""
    store, opening = bench.open()
    assert (Opening("life"), "life") == (opening, store.epoch)


def test_a_file_keeps_its_epoch_and_its_messages(bench: Bench) -> None:
    """Opened again it is the same log, under the name that it was made with."""
    store, _ = bench.open()
    messages = bench.append(store, Draft("a", b"\x00\xff", Kind.BINARY, "made"), Draft("b", b"", Kind.TEXT)).messages
    bench.close()
    again = Store(bench.path, durability="fsync")
    opening = again.begin("other", bench.now, alone=False)
    bench.stores.append(again)
    assert ("life", 2, tuple(messages)) == (again.epoch, opening.head, opening.recent)


@pytest.mark.parametrize("durability, synchronous", [("process", 1), ("fsync", 2)])
def test_durability_sets_how_sqlite_syncs(bench: Bench, durability: str, synchronous: int) -> None:
    """SQLite has a write-ahead log, and syncs each commit only with `fsync`."""
    store = Store(bench.path, durability=durability)
    bench.stores.append(store)
    assert synchronous == store._db.execute("PRAGMA synchronous").fetchone()[0]
    assert "wal" == store._db.execute("PRAGMA journal_mode").fetchone()[0]


def test_another_programs_database_is_left_alone(bench: Bench) -> None:
    """A database with tables that are not ours is refused, and unchanged."""
    db = sqlite3.connect(bench.path)
    db.execute("CREATE TABLE mine (id)")
    db.close()
    before = bench.path.read_bytes()
    with pytest.raises(ConfigurationError, match="another program's database"):
        bench.open()
    assert before == bench.path.read_bytes()


def test_another_version_is_refused(bench: Bench) -> None:
    """The error says which version it is, and what to do."""
    bench.open()
    bench.close()
    db = sqlite3.connect(bench.path)
    db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(ConfigurationError, match="of version 2, and this release knows 1"):
        bench.open()


def test_what_is_no_database_is_refused(bench: Bench) -> None:
    """A text file is not overwritten."""
    bench.path.write_text("dear diary, " * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        bench.open()
    assert bench.path.read_text().startswith("dear diary")


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    """The error names the path and asks for the folder."""
    with pytest.raises(ConfigurationError, match=r"nowhere/log.db: can't be opened: .* is the folder there"):
        Store(tmp_path / "nowhere" / "log.db", durability="process")


def test_a_reader_does_not_write(bench: Bench) -> None:
    """The connection that reads the history can't change the log."""
    bench.open()
    reader = Store(bench.path, durability="process", write=False)
    bench.stores.append(reader)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.append([Draft("a", b"")], bench.now, DAY, 0)


# -- appending


def test_numbers_go_up_by_one_and_times_never_back(bench: Bench) -> None:
    """A clock that is set back does not set a time back."""
    store, _ = bench.open()
    bench.append(store, "a")
    bench.now -= 3600
    made = bench.append(store, "bc")
    assert [(2, NOW), (3, NOW)] == [(message.seq, message.time) for message in made.messages]


def test_an_append_tells_what_others_have_appended(bench: Bench) -> None:
    """A node gets the messages of others that it has not seen along with its own."""
    store, _ = bench.open()
    other, _ = bench.open(alone=False)
    bench.append(other, "abc")
    made = bench.append(store, "d", seen=1)
    assert made.others is not None
    assert ([2, 3], 3, [4]) == ([m.seq for m in made.others], made.before, [m.seq for m in made.messages])
    head, messages = other.follow(3)
    assert messages is not None
    assert (4, [4]) == (head, [m.seq for m in messages])
    assert (4, []) == other.follow(4)


def test_what_is_too_much_or_gone_is_left_to_the_history(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past a bound, and after trimming, the answer refers to the history."""
    store, _ = bench.open()
    bench.append(store, "aab")
    monkeypatch.setattr(sqlite_store, "RECENT", 2)
    assert (3, None) == store.follow(0)
    assert [2, 3] == [m.seq for m in store.follow(1)[1] or ()]
    monkeypatch.setattr(sqlite_store, "RECENT_BYTES", 1)
    assert (3, None) == store.follow(1)
    assert [3] == [m.seq for m in store.follow(2)[1] or ()]
    monkeypatch.setattr(sqlite_store, "RECENT", 100)
    monkeypatch.setattr(sqlite_store, "RECENT_BYTES", 100)
    store.trims.trim("a", 2)
    assert (3, None) == store.follow(1)
    assert bench.append(store, "a", seen=0).others is None


def test_a_key_is_known_for_its_time_and_across_openings(bench: Bench) -> None:
    """In its batch, in another, and after the file was opened again, until it expires; then it is a new message."""
    store, _ = bench.open()
    draft = Draft("a", b"x", key="k")
    assert [1, 1, 2] == [r.seq for r in bench.append(store, draft, draft, Draft("b", b"x", key="k")).receipts]
    bench.close()
    store, _ = bench.open(alone=False)
    bench.now += DAY - 1
    assert [1] == [r.seq for r in bench.append(store, draft).receipts]
    bench.now += 1
    assert [3] == [r.seq for r in bench.append(store, draft).receipts]
    assert [3] == [r.seq for r in bench.append(store, draft).receipts]


def test_a_failed_append_leaves_nothing(bench: Bench) -> None:
    """A full disk takes neither half of a batch, and the numbers are given to the next."""
    store, _ = bench.open()
    bench.append(store, "a")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        bench.append(store, Draft("a", b"1"), Draft("a", bytes(100_000)))
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert [2] == [m.seq for m in bench.append(store, "b").messages]
    assert [1, 2] == seqs(read(store, "ab", after(0)))


# -- reading


def test_pages_are_merged_lazily(bench: Bench) -> None:
    """Two channels of many messages are read a row at a time, and nothing holds the log's old pages after a read."""
    store, _ = bench.open()
    bench.append(store, "ab" * 500)
    reader = Store(bench.path, durability="process", write=False)
    bench.stores.append(reader)
    assert [1, 2, 3] == seqs(read(reader, "ab", after(0), limit=3))
    bench.append(store, "a")
    busy, _, _ = store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert 0 == busy


@pytest.mark.parametrize("channels", ["a", "b", "ab", "cab", "x"])
def test_it_finds_what_a_list_would(bench: Bench, channels: str) -> None:
    """Each start, limit and bound of bytes gives the page that going through all messages gives, trimmed or not."""
    text = "abacabbacbbacaa"
    clock = NOW
    model = HistoryBroker("life", lambda: clock)
    store, _ = bench.open()
    for letter in text:
        bench.append(store, letter)
        model.append(Draft(letter, b"x"))
        bench.now += 1
        clock += 1
    for trimmed in ("", "a", "b", "ca"):
        for name in trimmed:
            upto = model.mark(name).seq + 6
            while store.trims.trim(name, upto):
                pass
            model.trim(name, upto)
        numbers = range(len(text) + 3)
        starts = [EARLIEST, LATEST, *map(after, numbers), *(Start(StartKind.LAST, number=n) for n in numbers)]
        starts += [Start(StartKind.SINCE, number=NOW + n - 1.5) for n in numbers]
        for start in starts:
            for limit, max_bytes in ((0, ENOUGH), (1, ENOUGH), (4, ENOUGH), (ENOUGH, 3), (ENOUGH, 0), (ENOUGH, ENOUGH)):
                expected = model.find(channels, start, limit, max_bytes)
                assert expected == read(store, channels, start, limit, max_bytes), (trimmed, start, limit)


@given(times=st.lists(st.integers(0, 5), max_size=20), asked=st.integers(-1, 60), jump=st.integers(1, 5))
def test_since_is_found_by_bisection(times: list[int], asked: int, jump: int) -> None:
    """Whatever the times are and however many numbers lie between, the first that is not older is found."""
    store = Store(Path(":memory:"), durability="process")
    store.begin("life", 0.0, alone=True)
    time, seq = 0, 0
    expected = None
    for step in times:
        time += step
        seq += jump
        store._db.execute("INSERT INTO messages VALUES (?, 1, 0, NULL, ?, x'')", (seq, float(time)))
        if expected is None and time >= asked:
            expected = seq
    assert (seq + 1 if expected is None else expected) == store.file.first_since(asked, seq)
    store.close()


# -- trimming


def test_a_sweep_finds_what_is_too_old_and_too_much(bench: Bench) -> None:
    """By age in each sweep; by number where that is asked for."""
    store = fill(bench, "aabba")
    assert {} == store.trims.sweep(keep(), bench.now, counts=True)
    assert {"a": 2} == store.trims.sweep(keep(seconds=3), bench.now, counts=False)
    assert {} == store.trims.sweep(keep(messages=1), bench.now, counts=False)
    assert {"a": 2, "b": 3} == store.trims.sweep(keep(messages=1), bench.now, counts=True)
    assert (2, 0, 0) == (store.trims.over("a", 1), store.trims.over("a", 3), store.trims.over("x", 0))


def test_a_sweep_goes_on_where_the_last_one_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice of the channels at a time, and then from the beginning again."""
    monkeypatch.setattr(sqlite_trims, "SWEEP_CHANNELS", 2)
    store = fill(bench, "abc")
    found = []
    for _ in range(3):
        found.append((sorted(store.trims.sweep(keep(messages=0), bench.now, counts=True)), store.trims.swept))
    assert [(["a", "b"], False), (["c"], True), (["a", "b"], False)] == found


def test_a_trim_goes_in_slices_and_leaves_a_mark(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says whether there is more, and the mark is that of the last message that went."""
    monkeypatch.setattr(sqlite_trims, "TRIM_ROWS", 2)
    store = fill(bench, "aabaa")
    assert [True, False, False, False] == [
        store.trims.trim("a", 4),
        store.trims.trim("a", 4),
        store.trims.trim("a", 4),
        store.trims.trim("x", 9),
    ]
    page = read(store, "ab", after(0))
    assert ([3, 5], {"a": Mark(4, NOW + 3), "b": Mark()}) == (seqs(page), page.marks)


def test_the_head_does_not_go_back_where_the_newest_is_trimmed(bench: Bench) -> None:
    """Numbers and times go on from what was trimmed, in the next life of the process too."""
    store = fill(bench, "ab")
    store.trims.trim("a", 9)
    store.trims.trim("b", 9)
    assert 2 == read(store, "a", LATEST).after
    bench.now = 0.0
    (message,) = bench.append(store, "a").messages
    assert (3, NOW + 1) == (message.seq, message.time)


def test_a_channel_with_nothing_left_is_forgotten_and_its_mark_stays(bench: Bench) -> None:
    """After a week. A reader from before its mark still gets a gap."""
    store = fill(bench, "aab")
    store.trims.trim("a", 9)
    bench.now += 7 * DAY - 10
    assert ([], []) == store.trims.find_forgettable(bench.now, DAY)
    bench.now += 20
    found = store.trims.find_forgettable(bench.now, DAY)
    store.trims.forget(*found, bench.now, DAY)
    assert ([], []) == store.trims.find_forgettable(bench.now, DAY)
    assert ["b"] == [row[0] for row in store._db.execute("SELECT name FROM channels")]
    assert {"a": Mark(2, NOW + 1), "b": Mark()} == read(store, "ab", after(0)).marks
    bench.append(store, "a")
    assert {"a": Mark(2, NOW + 1), "b": Mark()} == read(store, "ab", after(0)).marks


def test_a_channel_that_has_come_back_meanwhile_is_not_forgotten(bench: Bench) -> None:
    """Between the look and the lock something may be published there."""
    store = fill(bench, "a")
    store.trims.trim("a", 9)
    bench.now += 8 * DAY
    found = store.trims.find_forgettable(bench.now, DAY)
    bench.append(store, "a")
    store.trims.forget(*found, bench.now, DAY)
    page = read(store, "a", after(0))
    assert ([2], Mark(1, NOW)) == (seqs(page), page.marks["a"])


def test_old_keys_are_forgotten(bench: Bench) -> None:
    """A slice at a time, and one that was given again since stays."""
    store, _ = bench.open()
    bench.append(store, Draft("a", b"", key="old"), Draft("a", b"", key="again"))
    bench.now += DAY + 1
    found = store.trims.find_forgettable(bench.now, DAY)
    bench.append(store, Draft("a", b"", key="again"))
    store.trims.forget(*found, bench.now, DAY)
    assert [("again", 3)] == store._db.execute("SELECT key, seq FROM keys").fetchall()


# -- openings and lives


def test_an_opening_has_the_end_of_the_log(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many messages and bytes; the floor is before them, and what was trimmed among them is marked."""
    store = fill(bench, "abcab")
    store.trims.trim("a", 4)
    monkeypatch.setattr(sqlite_store, "RECENT", 2)
    _, opening = bench.open(alone=False)
    assert ([3, 5], Mark(2, NOW + 2)) == ([m.seq for m in opening.recent], opening.floor)
    assert {"a": Mark(4, NOW + 3)} == opening.marks
    monkeypatch.setattr(sqlite_store, "RECENT_BYTES", 1)
    _, opening = bench.open(alone=False)
    assert ([5], Mark(4, NOW + 4), {}) == ([m.seq for m in opening.recent], opening.floor, opening.marks)


def test_an_opening_with_too_many_marks_has_nothing_recent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then every message is read from the history."""
    store = fill(bench, "zabcd")
    for name in "abc":
        store.trims.trim(name, 9)
    monkeypatch.setattr(sqlite_store, "RECENT", 2)
    _, opening = bench.open(alone=False)
    assert Opening("life", head=5, floor=Mark(5, NOW + 4)) == opening


def test_a_life_begins_above_all_that_could_have_been_given(bench: Bench) -> None:
    """A node that opens the file alone begins after a hole. One that joins does not."""
    store = fill(bench, "ab")
    bench.close()
    bench.now = NOW + 100
    store, opening = bench.open()
    first = 101 * NUMBERS_A_SECOND
    assert (first, ((2, first),), [1, 2]) == (opening.head, opening.holes, [m.seq for m in opening.recent])
    assert [first + 1] == [m.seq for m in bench.append(store, "a").messages]
    _, opening = bench.open(alone=False)
    assert (first + 1, ((2, first),)) == (opening.head, opening.holes)


def test_an_older_copy_never_gives_a_number_again(bench: Bench, tmp_path: Path) -> None:
    """However often it was started meanwhile: what was given beyond the copy lies in a hole, and none is valid."""
    fill(bench, "ab")
    bench.close()
    copy = tmp_path / "copy.db"
    shutil.copy(bench.path, copy)
    given = []
    for _ in range(20):  # it is started five times a second, as a broken unit is
        bench.now += 0.2
        store, _ = bench.open()
        given += [m.seq for m in bench.append(store, "a" * 10).messages]
        bench.close()
    shutil.copy(copy, bench.path)
    bench.now += 0.2
    store, opening = bench.open()
    again = [m.seq for m in bench.append(store, "a" * 10).messages]
    assert set() == set(given) & set(again)
    ((before, behind),) = opening.holes
    assert all(before < seq < behind for seq in given)


def test_a_clock_set_back_gives_no_number_again(bench: Bench) -> None:
    """A life begins above the last number even where the clock says that it is before it."""
    fill(bench, "ab")
    bench.close()
    bench.now = NOW - 3600
    _, opening = bench.open()
    bench.close()
    _, again = bench.open()
    assert 2 < opening.head < again.head


def test_holes_stay_known_up_to_a_number_of_lives(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all that was before them is trimmed: what was lost is not what was trimmed."""
    monkeypatch.setattr(sqlite_store, "HOLES", 3)
    store = fill(bench, "a")
    heads = []
    for _ in range(5):
        bench.now += 10
        store, opening = bench.open()
        heads.append(opening.head)
        store.trims.trim("a", heads[-1])
        bench.append(store, "a")
    assert heads[-3:] == [behind for _, behind in opening.holes]


@pytest.mark.parametrize("number", [2**63, 10**26, 1e300])
def test_a_number_is_bounded_where_sqlite_is_given_it(bench: Bench, number: float) -> None:
    """Whatever a start lets through: SQLite has no integers beyond 2^63 - 1, and would raise OverflowError."""
    store = fill(bench, "ab")
    start = Start(StartKind.LAST, number=1)
    object.__setattr__(start, "number", number)
    assert [1, 2] == seqs(read(store, "abx", start))


@pytest.mark.parametrize("times", [1, 3])
def test_a_file_that_is_just_written_to_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """A look without a lock may find the file half old and half new: it is not taken for damaged or foreign."""
    path = tmp_path / "a.db"
    File(path, durability="process").close()
    looks = iter([sqlite3.DatabaseError("database disk image is malformed")] * times)
    check = file_module._check

    def torn(db: sqlite3.Connection, path: Path) -> bool:
        for error in looks:
            raise error
        return check(db, path)

    monkeypatch.setattr(file_module, "_check", torn)
    check_file(path)
    assert next(looks, None) is None


def test_a_damaged_file_is_refused_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks damaged at each look is damaged."""
    monkeypatch.setattr(file_module, "LOOK_AGAIN", (0.0, 0.0))
    path = tmp_path / "a.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 4096)
    with pytest.raises(ConfigurationError, match="give the log a file of its own"):
        check_file(path)
