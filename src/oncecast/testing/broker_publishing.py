"""The clauses of the brokers' contract about publishing: numbers, order, keys, names, sizes, start and stop."""

from __future__ import annotations

from ..errors import Refusal
from ..message import EARLIEST, Cursor, Draft, Kind, Page, Receipt
from .broker_bench import DURABILITIES, BrokerBench, expect

MANY = 10_000


def names_itself(bench: BrokerBench) -> None:
    """Cursors of the epoch can be parsed, and the durability is one of the wire's."""
    cursor = Cursor(bench.opening.epoch, 1)
    try:
        read = Cursor.parse(str(cursor))
    except Refusal:
        read = None
    expect(cursor == read, "an epoch is 1 to 32 of [A-Za-z0-9_]", bench.opening.epoch)
    expect(
        bench.broker.capabilities.durability in DURABILITIES,
        "a durability is one of the wire's",
        bench.broker.capabilities.durability,
    )


def numbers_what_it_appends(bench: BrokerBench) -> None:
    """Numbers increase along the shard, over all channels, and each receipt has the number of its message."""
    receipts = [r for n in range(5) for r in bench.receipts(Draft(f"c{n % 2}", b"%d" % n))]
    seqs = [receipt.seq for receipt in receipts]
    expect(seqs == sorted(set(seqs)) and seqs[0] > 0, "each message has a higher number than the one before", seqs)
    expect({bench.opening.epoch} == {r.epoch for r in receipts}, "a receipt is of the broker's epoch", receipts)
    expect(
        {bench.broker.capabilities.durability} == {r.durability for r in receipts},
        "a receipt tells the durability",
        receipts,
    )


def keeps_the_order(bench: BrokerBench) -> None:
    """The sink gets messages in the order of their publishes, batches included."""
    published = [b"%d" % n for n in range(20)]
    for at in range(0, 20, 4):
        bench.receipts(*(Draft("c", data) for data in published[at : at + 4]))
    expect(published == [m.data for m in bench.messages], "the sink gets messages as published", bench.messages)
    seqs = [message.seq for message in bench.messages]
    expect(seqs == sorted(set(seqs)), "the sink gets messages in the order of their numbers", seqs)


def delivers_its_own(bench: BrokerBench) -> None:
    """A broker's own publishes reach its sink with channel, data, kind and event unaltered, and without the key."""
    drafts = [
        Draft("a", b'{"n":1}', Kind.JSON, "made"),
        Draft("b:1", "wörds\r\n".encode(), Kind.TEXT, None),
        Draft("c@x", b"\x00\xff\r\n", Kind.BINARY, "ünt", key="k"),
        Draft("d", b"", Kind.BINARY),
    ]
    receipts = bench.receipts(*drafts)
    sent = [(r.seq, d.channel, d.data, d.kind, d.event) for r, d in zip(receipts, drafts, strict=True)]
    seen = [(m.seq, m.channel, m.data, m.kind, m.event) for m in bench.messages]
    expect(sent == seen, "a message is what was published, under its receipt's number", seen)


def keeps_the_trace(bench: BrokerBench) -> None:
    """The context of a trace is delivered and read with its message, of any kind and size, and with no other."""
    trace = bytes(range(16)) + b"\xff" * 8 + b"\0"
    drafts = [
        Draft("a", data, kind, event, key, context)
        for n, (kind, data) in enumerate(((Kind.JSON, b"1"), (Kind.TEXT, b""), (Kind.BINARY, b"\n \0" * 20)))
        for event, key, context in (("e", f"k{n}", trace), (None, None, None), (None, None, trace[::-1]))
    ]
    bench.receipts(*drafts)
    sent = [(d.data, d.kind, d.event, d.trace) for d in drafts]
    seen = [(m.data, m.kind, m.event, m.trace) for m in bench.messages]
    expect(sent == seen, "a message has the trace of its draft", seen)
    page = bench.page("a", bench.after(0))
    if page is not None:
        read = [(m.data, m.kind, m.event, m.trace) for m in page.messages]
        expect(read == sent[len(sent) - len(read) :], "the history has it too", read)


def delivers_before_it_answers(bench: BrokerBench) -> None:
    """A message reaches the sink before its receipt reaches the publisher."""
    receipts = bench.receipts(Draft("c", b"1"), Draft("c", b"2"))
    expected = [*(("sink", receipt.seq) for receipt in receipts), ("done", 0)]
    expect(expected == bench.events[1:], "the sink is called before done", bench.events)


def answers_in_order(bench: BrokerBench) -> None:
    """The outcomes of a batch are in the order of its drafts, repeated drafts included."""
    (first,) = bench.receipts(Draft("c", b"1", key="k"))
    outcomes = bench.receipts(Draft("c", b"2"), Draft("c", b"again", key="k"), Draft("c", b"3"))
    expect(first == outcomes[1], "a repeated draft is answered in its place", outcomes)
    expect(outcomes[0].seq < outcomes[2].seq, "a batch is appended in order", outcomes)
    expect([m.data for m in bench.messages] == [b"1", b"2", b"3"], "a repeat is not appended", bench.messages)


def answers_nothing_to_nothing(bench: BrokerBench) -> None:
    """An empty batch has no outcomes, and delivers nothing."""
    bench.publish()
    expect(bench.messages == [], "an empty batch delivers nothing", bench.messages)


def appends_a_key_once(bench: BrokerBench) -> None:
    """A repeated key on a channel is one message with one receipt, whatever the data of the repeats."""
    receipts = [r for n in range(3) for r in bench.receipts(Draft("c", b"%d" % n, key="k"))]
    expect(len(set(receipts)) == 1, "a repeated publish gets the first receipt", receipts)
    expect([m.data for m in bench.messages] == [b"0"], "a repeated publish is appended once", bench.messages)


def keeps_keys_apart(bench: BrokerBench) -> None:
    """The same key on another channel, and another key on the same, is another message."""
    drafts = [Draft("a", b"1", key="k"), Draft("b", b"2", key="k"), Draft("a", b"3", key="K"), Draft("a", b"4")]
    receipts = bench.receipts(*drafts)
    expect(len({receipt.seq for receipt in receipts}) == 4, "a key belongs to its channel", receipts)
    expect([d.data for d in drafts] == [m.data for m in bench.messages], "each of them is appended", bench.messages)


def appends_a_key_once_in_a_batch(bench: BrokerBench) -> None:
    """A key that a batch holds twice is one message."""
    first, other, second = bench.receipts(
        Draft("c", b"1", key="k"), Draft("d", b"2", key="k"), Draft("c", b"3", key="k")
    )
    expect(first == second and other != first, "a key counts inside its own batch too", (first, other, second))
    expect([m.data for m in bench.messages] == [b"1", b"2"], "it is appended once", bench.messages)


def times_never_go_back(bench: BrokerBench) -> None:
    """A message's time is in Unix seconds, and never less than that of the message before."""
    for n in range(5):
        bench.receipts(Draft(f"c{n % 2}", b"%d" % n))
    times = [message.time for message in bench.messages]
    expect(times == sorted(times), "times never decrease along a shard", times)
    expect(times[0] >= 0, "a time is in Unix seconds", times)


def refuses_once_closed(bench: BrokerBench) -> None:
    """A closed broker answers every draft with `unavailable`, delivers nothing, and may be closed again."""
    bench.stop()
    outcomes = bench.publish(Draft("c", b"1"), Draft("c", b"2"))
    codes = [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]
    expect(codes == ["unavailable"] * 2, "a closed broker refuses with `unavailable`", outcomes)
    expect(bench.messages == [], "a closed broker delivers nothing", bench.messages)


def refuses_until_started(bench: BrokerBench) -> None:
    """Before it is started a broker refuses with `unavailable`; it may be stopped then, and stopped again."""
    early = BrokerBench(bench.lab.make(), bench.lab)
    outcomes = early.publish(Draft("c", b"1"))
    codes = [outcome.code if isinstance(outcome, Refusal) else "taken" for outcome in outcomes]
    expect(codes == ["unavailable"], "a broker that was not started refuses with `unavailable`", outcomes)
    early.stop()
    early.stop()
    expect(early.events[:1] == [("done", 0)], "a broker that was not started calls no sink", early.events)


def answers_all_when_it_stops(bench: BrokerBench) -> None:
    """A publish under way at a stop is answered once, with a receipt or a refusal; one with a receipt was delivered."""
    answers = [bench.send(Draft("c", b"%d" % n)) for n in range(50)]
    bench.stop()
    expect(all(len(answer) == 1 for answer in answers), "each publish is answered before `stop` returns", answers)
    refused = [a[0].code for a in answers if isinstance(a[0], Refusal)]
    expect(set(refused) <= {"unavailable"}, "a stop refuses with `unavailable`", refused)
    taken = [a[0].seq for a in answers if isinstance(a[0], Receipt)]
    expect(set(taken) <= set(bench.seqs()), "what was taken was delivered", taken)
    expect(taken == sorted(taken), "what was taken was taken in order", taken)


def takes_any_key(bench: BrokerBench) -> None:
    """A key is any text of 1 to 255 characters; keys differ by line breaks, spaces at the ends and look-alikes."""
    keys = [
        "k",
        " k",
        "k ",
        "K",
        "k\r\n",
        "k\n",
        "k\r",
        "a\r\nNats-Msg-Id: x",
        "k\0",
        "\t",
        "ключ",
        "k" * 255,
        "🔑" * 255,
    ]
    keys += ["b:k", "a:b:k", "b\nk", "*", ">", "..", "%20", "'", '"', "{}"]
    drafts = [Draft("a", b"%d" % n, Kind.BINARY, key=key) for n, key in enumerate(keys)]
    drafts += [
        Draft("a:b", b"", Kind.BINARY, key=key) for key in ("k", ":k", "b:k")
    ]  # a name and its key are not joined
    bench.want("a:b")
    first = bench.receipts(*drafts)
    expect(len({receipt.seq for receipt in first}) == len(drafts), "each key is another message", first)
    again = [receipt for draft in drafts for receipt in bench.receipts(draft)]
    expect(first == again, "each key is known again", again)
    seen = [message.data for message in bench.messages]
    expect(seen == [draft.data for draft in drafts], "each key is appended once", seen)


def takes_any_channel(bench: BrokerBench) -> None:
    """Every name that the grammar allows is a channel of its own, and can be read."""
    names = [
        "n",
        "N",
        "n.",
        "n..m",
        "n.m",
        "n...",
        "n:m",
        "n@m",
        "n-m",
        "n_m",
        "9",
        "n" * 128,
        "n.-_:@",
        "n:",
        "n::",
        "0-0",
    ]
    bench.want(*names)
    bench.receipts(*(Draft(name, name.encode(), Kind.TEXT) for name in names))
    seen = [(message.channel, message.data.decode()) for message in bench.messages]
    expect(seen == [(name, name) for name in names], "a channel keeps its name", seen)
    for name in names:
        page = bench.ask_names((name,), EARLIEST)
        if page is not None:
            expect(isinstance(page, Page), "each channel can be read", page)
            assert isinstance(page, Page)
            expect([m.data for m in page.messages] == [name.encode()], "a channel has its own messages", (name, page))


def takes_any_size(bench: BrokerBench) -> None:
    """Messages of 0 bytes to 1 MiB, of any bytes, singly and in a batch, are delivered and read unaltered."""
    some = bytes(range(256))
    sizes = [0, 1, 255, 65_535, 65_536, 100 << 10, 1 << 20, 3, 1 << 20, 0]
    drafts = [Draft("a", (some * (size // 256 + 1))[:size], Kind.BINARY) for size in sizes]
    bench.receipts(*drafts)
    for draft in drafts:
        bench.receipts(draft)
    seen = [message.data for message in bench.messages]
    expect(seen == [d.data for d in drafts * 2], "a message arrives whole, whatever its size", list(map(len, seen)))
    seq = 0
    found: list[bytes] = []
    while isinstance(page := bench.ask("a", bench.after(seq), 100, 1 << 20), Page) and page.messages:
        found.extend(message.data for message in page.messages)
        seq = page.upto
    if page is not None:
        expect(found == seen, "a message is read whole, whatever its size", list(map(len, found)))


def serves_many_channels(bench: BrokerBench) -> None:
    """10,000 channels are wanted at once, each delivers its message, and all are unwanted again."""
    names = [f"many-{n}" for n in range(MANY)]
    bench.want(*names)
    answers = [bench.send(*(Draft(name, b"1") for name in names[at : at + 500])) for at in range(0, MANY, 500)]
    bench.wait(lambda: all(answers))
    refused = [outcome for answer in answers for outcome in answer if isinstance(outcome, Refusal)]
    expect(all(answers) and not refused, "a publish to many channels is taken", refused[:3])
    bench.wait(lambda: len(bench.messages) >= MANY)
    expect([m.channel for m in bench.messages] == names, "each channel gets its message", len(bench.messages))
    bench.broker.unwant(names)
    bench.receipts(Draft("a", b"1"))
