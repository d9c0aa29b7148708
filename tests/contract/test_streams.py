"""The port of the streams, over all its variants."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace

import pytest

from handlers.ports.domain import Position
from handlers.ports.streams import Entry, Keep, Published, Streams
from storage.streams import StreamsOptions, open_streams


@pytest.fixture(params=["postgres"])
async def streams(postgres_url: str) -> AsyncIterator[Streams]:
    async with open_streams(StreamsOptions(postgres_url)) as opened:
        yield opened


def entry(name: str, channel: str = "orders:feed", *, source: str = "/orderwire", data: bytes = b"{}") -> Entry:
    return Entry(channel, source, name, data, time_ms=1_700_000_000_123)


def where(published: Iterable[Published]) -> list[tuple[str, int]]:
    return [(item.channel, item.publication.offset) for item in published]


async def ids(streams: Streams, channel: str) -> list[str]:
    """The ids in a channel's log; tests that use it put the id into the data."""
    page = await streams.read(channel, after=0, limit=100_000, max_bytes=2**30)
    assert [one.offset for one in page.publications] == list(range(1, page.top.offset + 1))
    return [one.data.decode() for one in page.publications]


async def test_offsets_count_from_one_in_each_channel_in_batch_order(streams: Streams) -> None:
    published = list(
        (await streams.append([entry("1", "b"), entry("1", "a"), entry("2", "b"), entry("2", "a")])).values()
    )

    assert where(published) == [("b", 1), ("a", 1), ("b", 2), ("a", 2)]
    assert where((await streams.append([entry("3", "a")])).values()) == [("a", 3)]


async def test_data_and_time_come_back_as_they_were(streams: Streams) -> None:
    data = '{"name":"Gürtel","n":1.0}'.encode()
    [published] = (await streams.append([entry("1", data=data)])).values()

    page = await streams.read("orders:feed", after=0, limit=10, max_bytes=1000)

    assert list(page.publications) == [published.publication]
    assert (published.publication.data, published.publication.time_ms) == (data, 1_700_000_000_123)


async def test_what_a_channel_has_had_is_left_out(streams: Streams) -> None:
    await streams.append([entry("1"), entry("2")])

    published = list((await streams.append([entry("2"), entry("3"), entry("1"), entry("4")])).values())

    assert where(published) == [("orders:feed", 3), ("orders:feed", 4)]
    assert await streams.append([entry("1"), entry("4")]) == {}


async def test_repeats_inside_a_batch_are_left_out_and_the_first_counts(streams: Streams) -> None:
    published = list(
        (await streams.append([entry("1", data=b"1"), entry("2", data=b"2"), entry("1", data=b"9")])).values()
    )

    assert [item.publication.data for item in published] == [b"1", b"2"]


async def test_identity_is_channel_and_source_and_id_together(streams: Streams) -> None:
    published = list((await streams.append([entry("1"), entry("1", source="/other"), entry("1", "order:1")])).values())

    assert len(published) == 3


async def test_an_entry_without_an_id_is_always_new(streams: Streams) -> None:
    await streams.append([entry("")])

    published = (await streams.append([entry(""), entry(""), entry("1")])).values()

    assert where(published) == [("orders:feed", 2), ("orders:feed", 3), ("orders:feed", 4)]


async def test_the_result_tells_which_of_the_entries_were_new(streams: Streams) -> None:
    await streams.append([entry("1")])

    published = await streams.append([entry("1"), entry("2"), entry("2"), entry("3")])

    assert {index: item.publication.offset for index, item in published.items()} == {1: 2, 3: 3}


async def test_a_repeated_entry_can_be_found(streams: Streams) -> None:
    [_, second] = (await streams.append([entry("1"), entry("2")])).values()

    assert await streams.find("orders:feed", "/orderwire", "2") == Position(2, second.epoch)
    assert await streams.find("orders:feed", "/orderwire", "3") is None


async def test_a_stream_that_was_cleared_goes_on_from_where_it_was(streams: Streams) -> None:
    [first, *_] = (await streams.append([entry("1"), entry("2"), entry("1", "order:1")])).values()
    await streams.clear("orders:feed")

    page = await streams.read("orders:feed", after=0, limit=10, max_bytes=1000)
    assert (page.publications, page.top) == ([], Position(2, first.epoch))
    assert where((await streams.append([entry("1"), entry("3")])).values()) == [("orders:feed", 3)]
    assert len((await streams.read("order:1", after=0, limit=10, max_bytes=1000)).publications) == 1


async def test_an_older_version_is_left_out(streams: Streams) -> None:
    first = await streams.append_newer(entry("", data=b"5"), 5, "a")
    repeated = await streams.append_newer(entry("", data=b"5"), 5, "a")
    older = await streams.append_newer(entry("", data=b"4"), 4, "a")
    newer = await streams.append_newer(entry("", data=b"6"), 6, "a")
    of_another_epoch = await streams.append_newer(entry("", data=b"1"), 1, "b")

    assert (repeated, older) == (None, None)
    assert where(item for item in (first, newer, of_another_epoch) if item) == [("orders:feed", n) for n in (1, 2, 3)]


async def test_of_versions_that_race_the_highest_is_last(streams: Streams) -> None:
    versions = random.Random(1).sample(range(1, 31), 30)

    await asyncio.gather(*(streams.append_newer(entry("", data=b"%d" % n), n, "") for n in versions))

    kept = [int(name) for name in await ids(streams, "orders:feed")]
    assert kept == sorted(set(kept))
    assert kept[-1] == 30


async def test_a_known_entry_is_left_out_whatever_its_version(streams: Streams) -> None:
    assert await streams.append_newer(entry("1"), 1, "") is not None
    assert await streams.append_newer(entry("1"), 2, "") is None


async def test_an_entry_that_is_left_out_does_not_count_as_the_newest_version(streams: Streams) -> None:
    await streams.append_newer(entry("1"), 1, "")
    await streams.append_newer(entry("1"), 7, "")

    assert await streams.append_newer(entry("2"), 5, "") is not None


async def test_an_identity_is_remembered_once(streams: Streams) -> None:
    assert [await streams.remember("c", "/s", name) for name in ("1", "2", "1")] == [True, True, False]
    assert await streams.find("c", "/s", "1") is None


async def test_what_is_forgotten_can_be_remembered_anew_unless_it_is_in_the_stream(streams: Streams) -> None:
    await streams.append([entry("1")])
    await streams.remember("orders:feed", "/s", "2")

    for name in ("1", "2"):
        await streams.forget("orders:feed", entry(name).source, name)
    await streams.forget("orders:feed", "/s", "2")

    assert await streams.remember("orders:feed", "/s", "2")
    assert await streams.append([entry("1")]) == {}


async def test_publisher_and_tags_come_back_as_they_were(streams: Streams) -> None:
    info, tags = b'{"user":"42","client":"c"}', b'{"lang":"en"}'
    [published] = (await streams.append([replace(entry("1"), info=info, tags=tags)])).values()

    page = await streams.read("orders:feed", after=0, limit=10, max_bytes=1000)

    assert list(page.publications) == [published.publication]
    assert (published.publication.info, published.publication.tags) == (info, tags)


async def test_of_a_stream_with_a_size_the_last_ones_can_be_read(streams: Streams) -> None:
    small = [replace(entry(str(n), data=b"%d" % n), keep=Keep(size=3)) for n in range(1, 101)]
    await streams.append(small)

    forwards = await streams.read("orders:feed", after=0, limit=10, max_bytes=1000)
    backwards = await streams.read_back("orders:feed", before=None, limit=10, max_bytes=1000)

    assert [one.offset for one in forwards.publications] == [98, 99, 100]
    assert [one.offset for one in backwards.publications] == [100, 99, 98]
    assert forwards.top.offset == 100


async def test_an_empty_batch_publishes_nothing(streams: Streams) -> None:
    assert await streams.append([]) == {}


async def test_publications_and_heads_agree_on_the_epoch(streams: Streams) -> None:
    [published] = (await streams.append([entry("1")])).values()

    assert await streams.open(["orders:feed"]) == {"orders:feed": Position(1, published.epoch)}
    salt, _, generation = published.epoch.partition(".")
    assert len(salt) >= 8
    assert generation.isdigit()


async def test_a_stream_that_was_never_written_begins_when_it_is_opened(streams: Streams) -> None:
    opened = await streams.open(["b", "orders:feed", "a"])

    assert {head.offset for head in opened.values()} == {0}
    assert all(head.epoch for head in opened.values())
    assert await streams.open(["a", "b", "orders:feed"]) == opened
    [published] = (await streams.append([entry("1")])).values()
    assert (published.publication.offset, published.epoch) == (1, opened["orders:feed"].epoch)


async def test_a_stream_that_is_opened_and_appended_to_by_many_at_once_begins_once(streams: Streams) -> None:
    channels = [f"channel:{n}" for n in range(30)]

    async def append(name: str) -> set[tuple[str, str]]:
        published = list(
            (await streams.append([entry(name, channel) for channel in random.sample(channels, 20)])).values()
        )
        return {(item.channel, item.epoch) for item in published}

    async def open_some() -> set[tuple[str, str]]:
        opened = await streams.open(random.sample(channels, 20))
        return {(channel, head.epoch) for channel, head in opened.items()}

    seen = await asyncio.gather(*(work for n in range(20) for work in (append(str(n)), open_some())))

    assert sorted(channel for channel, _ in set().union(*seen)) == sorted(channels)


async def test_only_streams_that_are_not_where_they_are_known_to_be_have_moved(streams: Streams) -> None:
    known = {**await streams.open(["still", "written"]), "gone": Position(7, "salt.1"), "never": Position(0, "")}
    await streams.append([entry("1", "written")])

    assert await streams.moved(known) == {
        "written": Position(1, known["written"].epoch),
        "gone": Position(0, ""),
    }


async def test_of_no_stream_none_is_opened_and_none_has_moved(streams: Streams) -> None:
    assert await streams.open([]) == await streams.moved({}) == {}


async def test_a_page_holds_at_most_the_limit_and_the_head_of_the_stream(streams: Streams) -> None:
    await streams.append([entry(str(n), data=b"%d" % n) for n in range(1, 8)])

    page = await streams.read("orders:feed", after=2, limit=3, max_bytes=1000)

    assert [one.offset for one in page.publications] == [3, 4, 5]
    assert page.top.offset == 7


async def test_a_page_holds_at_most_the_bytes_unless_the_first_alone_is_larger(streams: Streams) -> None:
    await streams.append([entry(str(n), data=b"x" * 100) for n in range(5)])

    def offsets(max_bytes: int) -> list[int]:
        return [one.offset for one in pages[max_bytes].publications]

    pages = {
        size: await streams.read("orders:feed", after=1, limit=10, max_bytes=size) for size in (1, 100, 299, 300, 999)
    }

    assert [offsets(size) for size in (1, 100, 299, 300, 999)] == [[2], [2], [2, 3], [2, 3, 4], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("before", "limit", "offsets"),
    [(None, 3, [7, 6, 5]), (5, 2, [4, 3]), (3, 10, [2, 1]), (1, 10, []), (2**64 - 1, 1, [7]), (None, 0, [])],
)
async def test_reading_back_gives_the_newest_before_an_offset_first(
    streams: Streams, before: int | None, limit: int, offsets: list[int]
) -> None:
    await streams.append([entry(str(n), data=b"%d" % n) for n in range(1, 8)])

    page = await streams.read_back("orders:feed", before=before, limit=limit, max_bytes=1000)

    assert [one.offset for one in page.publications] == offsets
    assert [one.data for one in page.publications] == [b"%d" % offset for offset in offsets]
    assert page.top.offset == 7


async def test_a_page_back_holds_at_most_the_bytes_unless_the_first_alone_is_larger(streams: Streams) -> None:
    await streams.append([entry(str(n), data=b"x" * 100) for n in range(5)])

    pages = [
        await streams.read_back("orders:feed", before=5, limit=10, max_bytes=size) for size in (1, 100, 299, 300, 999)
    ]

    assert [[one.offset for one in page.publications] for page in pages] == [
        [4],
        [4],
        [4, 3],
        [4, 3, 2],
        [4, 3, 2, 1],
    ]


async def test_reading_at_the_head_gives_the_head_alone(streams: Streams) -> None:
    [published] = (await streams.append([entry("1")])).values()

    page = await streams.read("orders:feed", after=1, limit=10, max_bytes=1000)

    assert (list(page.publications), page.top) == ([], Position(1, published.epoch))


async def test_a_stream_that_was_never_written_reads_as_empty(streams: Streams) -> None:
    page = await streams.read("never:written", after=0, limit=10, max_bytes=1000)

    assert (list(page.publications), page.top) == ([], Position(0, ""))


async def test_the_same_batch_from_many_at_once_is_appended_once(streams: Streams) -> None:
    batch = [entry(str(n), f"channel:{n % 3}") for n in range(30)]

    results = await asyncio.gather(*(streams.append(batch) for _ in range(8)))

    assert sorted(spot for published in results for spot in where(published.values())) == [
        (f"channel:{channel}", offset) for channel in range(3) for offset in range(1, 11)
    ]


@pytest.mark.parametrize("seed", range(5))
async def test_overlapping_writers_on_hot_channels_leave_no_gap_no_double_and_no_inversion(
    streams: Streams, seed: int
) -> None:
    rng = random.Random(seed)
    channels = ["hot", "warm", *(f"cold:{n}" for n in range(20))]
    weights = [30, 10, *([1] * 20)]
    log = [
        entry(f"{n}", channel, data=b"%d" % n)
        for n, channel in enumerate(rng.choices(channels, weights=weights, k=600))
    ]
    results: list[Published] = []

    async def consumer() -> None:
        """One of several that were handed the same queue, from its beginning, in batches of its own."""
        at = 0
        while at < len(log):
            size = rng.randrange(1, 60)
            results.extend((await streams.append(log[at : at + size])).values())
            at += size

    async def chat(user: int) -> None:
        for n in range(40):
            name = f"{user}-{n}"
            results.extend((await streams.append([entry(name, rng.choice(channels), data=name.encode())])).values())

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(consumer())
        for user in range(3):
            group.create_task(chat(user))

    expected: dict[str, list[str]] = defaultdict(list)
    for item in log:
        expected[item.channel].append(item.id)
    stored = {channel: await ids(streams, channel) for channel in channels}
    assert {channel: [name for name in found if "-" not in name] for channel, found in stored.items()} == expected
    assert sorted(where(results)) == sorted(
        (channel, offset) for channel, found in stored.items() for offset in range(1, len(found) + 1)
    )
    assert len({name for found in stored.values() for name in found}) == len(log) + 3 * 40


async def test_a_reader_never_sees_an_offset_before_the_ones_below_it(streams: Streams) -> None:
    writers = asyncio.gather(
        *(streams.append([entry(f"{writer}-{n}", "hot") for n in range(20)]) for writer in range(20))
    )
    seen: list[int] = []
    while not writers.done() or len(seen) < 400:
        page = await streams.read("hot", after=len(seen), limit=1000, max_bytes=2**20)
        seen += [one.offset for one in page.publications]
        assert seen == list(range(1, page.top.offset + 1))
    await writers
