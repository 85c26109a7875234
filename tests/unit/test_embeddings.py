"""Embeddings: rows by recording and version, appended once, never wrong, within their limit."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from after_model.audio import Utterance
from after_model.features import Embeddings, PoolEmbeddings, embed
from after_model.features import embeddings as module

WIDTH = 6


def key(recording: int, version: int = 1) -> str:
    """Versions count from 1: zeros stand for the newest."""
    return f"{recording * 2_654_435_761:020x}{version:012x}"


def values(*recordings: int, width: int = WIDTH) -> np.ndarray:
    """Rows that say whose they are; exact in half precision."""
    rows = [np.arange(width) + 8 * (i % 200) for i in recordings]
    return np.array(rows, np.float32).reshape(-1, width)


def of(tmp_path: Path, name: str = "encoder", **options: int) -> Embeddings:
    return Embeddings(tmp_path, name, WIDTH, **options)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


# --- rows ------------------------------------------------------------------------------------


def test_rows_are_found_by_key_in_the_order_they_were_appended(tmp_path):
    embeddings = of(tmp_path)
    embeddings.append([key(3), key(1)], values(3, 1))
    embeddings.append([key(2)], values(2))
    assert embeddings.rows([key(1), key(9), key(2), key(3)]).tolist() == [1, -1, 2, 0]
    np.testing.assert_array_equal(embeddings.matrix, values(3, 1, 2).astype("f2"))
    assert len(embeddings) == 3


def test_an_empty_one_has_no_rows(tmp_path):
    embeddings = of(tmp_path)
    assert embeddings.matrix.shape == (0, WIDTH)
    assert embeddings.rows([key(1)]).tolist() == [-1]
    assert embeddings.rows([]).shape == (0,)


def test_the_matrix_is_memory_mapped(tmp_path):
    embeddings = of(tmp_path)
    embeddings.append([key(1)], values(1))
    assert isinstance(embeddings.matrix, np.memmap)


def test_another_name_and_another_width_have_matrices_of_their_own(tmp_path):
    of(tmp_path, "a/b").append([key(1)], values(1))
    assert len(of(tmp_path, "a-b")) == 0
    assert len(Embeddings(tmp_path, "a/b", WIDTH + 1)) == 0
    assert len(of(tmp_path, "a/b")) == 1


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3)), max_size=6), max_size=12),
    st.integers(1, 8),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_appends_and_reopenings_behave_like_a_dictionary(batches, merge, data):
    """The oracle is a list of what was appended, searched from its beginning or its end."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MERGE", merge)  # so that few rows are many
        embeddings, expected = of(Path(folder)), []
        for batch in batches:
            if data.draw(st.booleans()):
                embeddings = of(Path(folder))
            embeddings.append([key(*k) for k in batch], values(*(13 * v + r for r, v in batch)))
            expected += [k for i, k in enumerate(batch) if k not in expected + batch[:i]]
        asked = [(r, v) for r in range(14) for v in range(1, 4)]
        rows = embeddings.rows([key(*k) for k in asked])
        assert rows.tolist() == [expected.index(k) if k in expected else -1 for k in asked]
        newest = embeddings.rows([key(r, 0) for r in range(14)])
        own = [[i for i, (r, _) in enumerate(expected) if r == asked] for asked in range(14)]
        assert newest.tolist() == [max(rows, default=-1) for rows in own]
        stored = values(*(13 * v + r for r, v in expected))
        np.testing.assert_array_equal(embeddings.matrix, stored.astype("f2"))


def test_recordings_whose_keys_begin_alike_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MERGE", 1)
    keys = ["ab" * 8 + f"{path:04x}" + f"{version:012x}" for path in (1, 2) for version in (1, 2)]
    embeddings = of(tmp_path)
    embeddings.append(keys, values(0, 1, 2, 3))
    assert embeddings.rows(keys).tolist() == [0, 1, 2, 3]
    assert embeddings.rows([k[:20] + "0" * 12 for k in keys]).tolist() == [1, 1, 3, 3]


def test_values_beyond_half_precision_are_set_to_its_bounds(tmp_path):
    embeddings = of(tmp_path)
    embeddings.append([key(1)], np.array([[1e6, -1e6, 65_504, 65_519, 1, 0]], np.float32))
    assert embeddings.matrix[0].tolist() == [65_504, -65_504, 65_504, 65_504, 1, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, bad):
    rows = values(1, 2)
    rows[1, 3] = bad
    embeddings = of(tmp_path)
    with pytest.raises(ValueError, match=f"{key(2)}.*not finite"):
        embeddings.append([key(1), key(2)], rows)
    assert len(embeddings) == 0


def test_values_of_another_width_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\(1, 7\) values"):
        of(tmp_path).append([key(1)], values(1, width=7))


# --- opening ---------------------------------------------------------------------------------


def test_opening_reads_the_headers_and_nothing_else(tmp_path, monkeypatch):
    of(tmp_path).append([key(i) for i in range(5_000)], values(*range(5_000)))
    read = 0
    real = Path.open

    class Counted:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Counted:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            return self.file.fileno()

        def read(self, size: int = -1) -> bytes:
            nonlocal read
            data = self.file.read(size)
            read += len(data)
            return data

    def opened(path: Path, *args: object, **options: object) -> Counted:
        return Counted(real(path, *args, **options))

    monkeypatch.setattr(Path, "open", opened)
    embeddings = of(tmp_path)
    assert len(embeddings) == 5_000
    assert embeddings.matrix.shape == (5_000, WIDTH)
    assert 0 < read < 200


def test_what_another_instance_appended_is_seen_after_a_refresh(tmp_path):
    reader, writer = of(tmp_path), of(tmp_path)
    writer.append([key(1)], values(1))
    assert len(reader) == 0
    reader.refresh()
    assert reader.rows([key(1)]).tolist() == [0]
    before = reader.matrix
    writer.append([key(2)], values(2))
    reader.refresh()
    np.testing.assert_array_equal(reader.matrix, values(1, 2).astype("f2"))
    np.testing.assert_array_equal(before, values(1).astype("f2"))


def test_two_writers_append_a_row_once(tmp_path):
    first, second = of(tmp_path), of(tmp_path)
    first.append([key(1), key(2)], values(1, 2))
    second.append([key(2), key(3)], values(2, 3))
    np.testing.assert_array_equal(second.matrix, values(1, 2, 3).astype("f2"))


def _append(folder: Path, numbers: list[int]) -> None:
    embeddings = of(folder)
    for i in numbers:
        embeddings.append([key(i)], values(i))


def test_processes_write_one_at_a_time(tmp_path, processes):
    orders = [list(range(30)), list(range(29, -1, -1))]
    started = [processes.Process(target=_append, args=(tmp_path, order)) for order in orders]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0, 0]
    embeddings = of(tmp_path)
    rows = embeddings.rows([key(i) for i in range(30)])
    assert sorted(rows) == list(range(30))
    np.testing.assert_array_equal(embeddings.matrix[rows], values(*range(30)).astype("f2"))


# --- damage ----------------------------------------------------------------------------------


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "another magic": lambda data: _flip(data, 3),
    "another pair": lambda data: _flip(data, 12),
    "another width": lambda data: _flip(data, 24),
    "another count": lambda data: _flip(data, 28),
    "another check sum": lambda data: _flip(data, 36),
    "truncated": lambda data: data[:-1],
    "header only": lambda data: data[:4_096],
    "half a header": lambda data: data[:20],
    "empty": lambda data: b"",
    "zeros": lambda data: b"\0" * len(data),
}


@pytest.mark.parametrize("kind", ["rows", "keys"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_begun_anew(tmp_path, kind, damage):
    of(tmp_path).append([key(1), key(2)], values(1, 2))
    (path,) = tmp_path.glob(f"*.{kind}")
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    embeddings = of(tmp_path)
    assert embeddings.rows([key(1), key(2)]).tolist() == [-1, -1]
    embeddings.append([key(3)], values(3))
    again = of(tmp_path)
    assert again.rows([key(1), key(3)]).tolist() == [-1, 0]
    np.testing.assert_array_equal(again.matrix, values(3).astype("f2"))


@pytest.mark.parametrize("kind", ["rows", "keys"])
def test_a_missing_file_is_begun_anew(tmp_path, kind):
    of(tmp_path).append([key(1)], values(1))
    (path,) = tmp_path.glob(f"*.{kind}")
    path.unlink()
    embeddings = of(tmp_path)
    assert len(embeddings) == 0
    embeddings.append([key(2)], values(2))
    assert of(tmp_path).rows([key(1), key(2)]).tolist() == [-1, 0]


def test_a_matrix_in_use_survives_being_begun_anew(tmp_path):
    reader = of(tmp_path)
    reader.append([key(1)], values(1))
    matrix = reader.matrix
    (path,) = tmp_path.glob("*.keys")
    path.write_bytes(b"")
    of(tmp_path).append([key(2)], values(2))
    np.testing.assert_array_equal(matrix, values(1).astype("f2"))
    reader.refresh()
    np.testing.assert_array_equal(reader.matrix, values(2).astype("f2"))


@pytest.mark.parametrize("tail", [1, 7, 100])
def test_a_torn_tail_is_ignored_and_written_over(tmp_path, tail):
    of(tmp_path).append([key(1)], values(1))
    for path in [*tmp_path.glob("*.rows"), *tmp_path.glob("*.keys")]:
        path.write_bytes(path.read_bytes() + b"\xff" * tail)
    embeddings = of(tmp_path)
    assert len(embeddings) == 1
    embeddings.append([key(2)], values(2))
    again = of(tmp_path)
    assert again.rows([key(1), key(2)]).tolist() == [0, 1]
    np.testing.assert_array_equal(again.matrix, values(1, 2).astype("f2"))


@pytest.mark.parametrize("moment", range(1, 4))
def test_a_disk_that_fails_while_rows_are_written_loses_only_those(tmp_path, monkeypatch, moment):
    embeddings = of(tmp_path)
    embeddings.append([key(1)], values(1))
    left = moment

    def failing(_file: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        embeddings.append([key(2)], values(2))
    monkeypatch.undo()
    embeddings.append([key(3)], values(3))
    again = of(tmp_path)
    rows = again.rows([key(1), key(3)])
    np.testing.assert_array_equal(again.matrix[rows], values(1, 3).astype("f2"))


# --- limit -----------------------------------------------------------------------------------


def test_the_limit_is_obeyed_to_the_byte(tmp_path):
    limit = 2 * 4_096 + 3 * (2 * WIDTH + 16)
    embeddings = of(tmp_path, max_bytes=limit)
    assert embeddings.append([key(i) for i in range(2)], values(0, 1)) == 2
    assert embeddings.append([key(i) for i in range(5)], values(*range(5))) == 3
    assert size_of(tmp_path) == limit
    assert embeddings.rows([key(i) for i in range(5)]).tolist() == [0, 1, 2, -1, -1]
    assert embeddings.append([key(7)], values(7)) == 0


def test_no_room_at_all_writes_nothing(tmp_path):
    assert of(tmp_path, max_bytes=100).append([key(1)], values(1)) == 0
    assert size_of(tmp_path) == 0


def test_other_encoders_go_first_the_longest_unused_before_others(tmp_path):
    for age, name in enumerate(["older", "oldest", "newest"]):
        of(tmp_path, name).append([key(1)], values(1))
        (path,) = tmp_path.glob(f"{name}-*.rows")
        os.utime(path, (0, 1_000 - 100 * age if name != "newest" else 2_000))
    one = 2 * 4_096 + 2 * WIDTH + 16
    embeddings = of(tmp_path, max_bytes=3 * one)
    embeddings.append([key(1)], values(1))
    assert size_of(tmp_path) <= 3 * one
    assert [len(of(tmp_path, name)) for name in ("older", "oldest", "newest")] == [1, 0, 1]


# --- a pool ----------------------------------------------------------------------------------

POOL = [Utterance(str(i), Path(f"{i}.wav")) for i in range(20)]
KEYS = [key(i) for i in range(20)]


class Encoder:
    """Says of recording i what values(i) says, in batches of 3 from the last to the first."""

    def __init__(self, unreadable: Sequence[int] = (), broken: Sequence[int] = ()) -> None:
        self.unreadable, self.broken = unreadable, broken
        self.asked: list[int] = []

    def __call__(self, utterances: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        numbers = [int(u.id) for u in utterances]
        self.asked += numbers
        good = [i for i, number in enumerate(numbers) if number not in self.unreadable][::-1]
        for batch in (np.array(good[at : at + 3]) for at in range(0, len(good), 3)):
            found = values(*(numbers[i] for i in batch))
            found[[numbers[i] in self.broken for i in batch]] = np.nan
            yield batch, found


def check(known: PoolEmbeddings, numbers: Sequence[int]) -> None:
    """Rows are right by every way of reading."""
    expected = values(*numbers)
    np.testing.assert_array_equal(known.take(np.arange(len(numbers))), expected)
    some = np.array([len(numbers) - 1, 0, 1])
    np.testing.assert_array_equal(known.take(some), expected[some])
    blocks = list(known.blocks(7))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), expected)
    assert [part.start for part, _ in blocks] == list(range(0, len(numbers), 7))
    assert {block.dtype for _, block in blocks} == {np.dtype(np.float32)}


def test_a_pool_is_computed_once_and_written_in_its_order(tmp_path):
    encoder = Encoder()
    check(embed(POOL, KEYS, of(tmp_path), encoder), range(20))
    known = embed(POOL, KEYS, of(tmp_path), encoder)
    check(known, range(20))
    assert known.rows.tolist() == list(range(20))
    assert sorted(encoder.asked) == list(range(20))


def test_only_what_is_missing_is_computed(tmp_path):
    embeddings, encoder = of(tmp_path), Encoder()
    embed(POOL[5:9], KEYS[5:9], embeddings, encoder)
    encoder.asked.clear()
    check(embed(POOL, KEYS, embeddings, encoder), range(20))
    assert sorted(encoder.asked) == [i for i in range(20) if not 5 <= i < 9]


def test_a_recording_that_changed_gets_a_row_of_its_own(tmp_path):
    embeddings, encoder = of(tmp_path), Encoder()
    embed(POOL, KEYS, embeddings, encoder)
    encoder.asked.clear()
    known = embed(POOL, [*KEYS[:3], key(3, version=2), *KEYS[4:]], embeddings, encoder)
    assert encoder.asked == [3]
    assert known.rows[3] == 20
    check(known, range(20))


def test_a_recording_that_is_twice_in_the_pool_is_computed_once(tmp_path):
    encoder = Encoder()
    twice = [*POOL, POOL[4]]
    check(embed(twice, [*KEYS, KEYS[4]], of(tmp_path), encoder), [*range(20), 4])
    assert sorted(encoder.asked) == list(range(20))


def test_an_empty_pool(tmp_path):
    known = embed([], [], of(tmp_path), Encoder())
    assert known.take(np.arange(0)).shape == (0, WIDTH)
    assert list(known.blocks(4)) == []


@pytest.mark.parametrize("fitting", [0, 3, 19])
@pytest.mark.parametrize("in_memory", [0, 2, 100])
def test_what_the_limits_leave_out_is_computed_when_asked_for(tmp_path, fitting, in_memory):
    limit = 2 * 4_096 + fitting * (2 * WIDTH + 16)
    encoder = Encoder()
    known = embed(
        POOL, KEYS, of(tmp_path, max_bytes=limit), encoder, memory_bytes=in_memory * 2 * WIDTH
    )
    encoder.asked.clear()
    check(known, range(20))
    left_out = max(0, 20 - fitting - in_memory)
    assert len(set(encoder.asked)) == left_out
    assert (len(known.matrix), len(known.spare)) == (fitting, min(in_memory, 20 - fitting))
    assert size_of(tmp_path) <= limit


def test_recordings_without_an_embedding_are_named_and_stop_nothing(tmp_path):
    embeddings, encoder = of(tmp_path), Encoder(unreadable=[2], broken=[7])
    known = embed(POOL, KEYS, embeddings, encoder)
    reasons = {i: (str(e.path), e.reason) for i, e in known.unreadable.items()}
    assert reasons == {
        2: ("2.wav", "could not be embedded"),
        7: ("7.wav", "has an embedding that is not finite"),
    }
    assert np.flatnonzero(~known.readable).tolist() == [2, 7]
    good = np.flatnonzero(known.readable)
    np.testing.assert_array_equal(known.take(good), values(*good))
    assert not known.take(np.array([2, 7])).any()
    assert len(embeddings) == 18


def test_recordings_without_an_embedding_are_tried_again(tmp_path):
    embed(POOL, KEYS, of(tmp_path), Encoder(unreadable=[2]))
    encoder = Encoder()
    check(embed(POOL, KEYS, of(tmp_path), encoder), range(20))
    assert encoder.asked == [2]


def test_rows_that_were_written_survive_an_encoder_that_fails_later(tmp_path, monkeypatch):
    monkeypatch.setattr("after_model.features.pool_embeddings.GROUP", 8)

    def failing(utterances: Sequence[Utterance]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if utterances[0].id == "8":
            raise RuntimeError("no more")
        yield from Encoder()(utterances)

    with pytest.raises(RuntimeError, match="no more"):
        embed(POOL, KEYS, of(tmp_path), failing)
    encoder = Encoder()
    check(embed(POOL, KEYS, of(tmp_path), encoder), range(20))
    assert sorted(encoder.asked) == list(range(8, 20))
