"""FeatureStore: computed once, never wrong, whatever is damaged, replaced or evicted."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from after_model import audio, backbone
from after_model.audio import AudioLimits, Utterance
from after_model.backbone import Backbone
from after_model.classifier import new_classifier, scoring
from after_model.features import FeatureStore
from after_model.features import entries as features_on_disk


@pytest.fixture(scope="module")
def tiny(tiny_backbone: Path) -> Backbone:
    return backbone.load(tiny_backbone)


@pytest.fixture
def store(tmp_path: Path, tiny: Backbone) -> FeatureStore:
    return FeatureStore(tmp_path / "store", tiny)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the recordings that the CNN was run on."""
    names: list[str] = []
    compute = FeatureStore._compute

    def counted(self: FeatureStore, utterance: Utterance) -> np.ndarray:
        names.append(utterance.id)
        return compute(self, utterance)

    monkeypatch.setattr(FeatureStore, "_compute", counted)
    return names


def entries(store: FeatureStore) -> list[Path]:
    return sorted(path for path in store.folder.glob("??/*") if not path.name.startswith("."))


def truth(tiny: Backbone, utterance: Utterance) -> np.ndarray:
    """What the CNN says of a recording, with nothing in between."""
    wave = tiny.prepare(audio.load(utterance.path))
    with torch.inference_mode():
        features, _ = tiny.encode_cnn(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
    return features[0].numpy()


def copies(recordings: list[Utterance], folder: Path) -> list[Utterance]:
    """Recordings of a test's own, to damage and replace."""
    folder.mkdir()
    return [Utterance(u.id, Path(shutil.copy2(u.path, folder / u.path.name))) for u in recordings]


# --- what it gives ---------------------------------------------------------------------------


def test_features_are_what_the_cnn_says(tmp_path, tiny, recordings):
    store = FeatureStore(tmp_path, tiny, exact=True)
    store.fill(recordings)
    for utterance in recordings:
        np.testing.assert_array_equal(store[utterance], truth(tiny, utterance))


def test_an_entry_that_was_never_filled_is_computed(tmp_path, tiny, recordings):
    store = FeatureStore(tmp_path, tiny, exact=True)
    np.testing.assert_array_equal(store[recordings[0]], truth(tiny, recordings[0]))


def test_half_precision_moves_features_by_less_than_a_thousandth(store, tiny, recordings):
    store.fill(recordings)
    for utterance in recordings:
        exact = truth(tiny, utterance)
        assert store[utterance].dtype == np.float16
        assert np.abs(store[utterance] - exact).max() < 1e-3 * np.abs(exact).max()


def test_half_precision_moves_probabilities_by_less_than_a_thousandth(tmp_path, tiny, recordings):
    classifier = new_classifier(tiny, 4)
    with torch.no_grad():
        classifier.head.linear.weight *= 5  # so that the probabilities differ from each other
    probs = [
        scoring.score(classifier, FeatureStore(tmp_path, tiny, exact=exact), recordings).probs
        for exact in (True, False)
    ]
    assert np.ptp(probs[0]) > 0.1
    np.testing.assert_allclose(probs[1], probs[0], atol=1e-3)


def test_frames_are_the_lengths_of_the_entries(store, tiny, recordings):
    frames = store.frames(recordings)
    assert frames.dtype == np.int64
    assert frames.tolist() == [len(store[u]) for u in recordings]
    sizes = [soundfile.info(u.path).frames for u in recordings]
    assert frames.tolist() == [tiny.num_frames(size) for size in sizes]


def test_pooled_is_the_mean_over_time(store, tiny, recordings):
    pooled = store.pooled(recordings)
    assert pooled.dtype == np.float32
    expected = np.stack([truth(tiny, u).mean(axis=0) for u in recordings])
    np.testing.assert_allclose(pooled, expected, atol=1e-3)


def test_no_recordings_give_empty_arrays(store, tiny):
    assert store.fill([]) == []
    assert store.frames([]).shape == (0,)
    assert store.pooled([]).shape == (0, tiny.cnn_dim)


def test_the_same_recording_twice_is_one_entry(store, recordings, computed):
    twin = dataclasses.replace(recordings[0], id="twin")
    assert store.fill([recordings[0], twin, recordings[0]]) == []
    np.testing.assert_array_equal(store[twin], store[recordings[0]])
    assert len(entries(store)) == 1


# --- once ------------------------------------------------------------------------------------


def test_every_recording_is_computed_once(store, recordings, computed):
    store.fill(recordings)
    store.fill(recordings)
    for utterance in recordings:
        store[utterance]
    store.frames(recordings)
    store.pooled(recordings)
    assert sorted(computed) == sorted(u.id for u in recordings)


def test_another_instance_reads_what_one_wrote(store, tiny, recordings, computed):
    store.fill(recordings)
    written = [np.array(store[u]) for u in recordings]
    computed.clear()
    other = FeatureStore(store.root, tiny)
    other.fill(recordings)
    for utterance, features in zip(recordings, written, strict=True):
        np.testing.assert_array_equal(other[utterance], features)
    assert computed == []


def test_entries_are_read_from_memory_mapped_files(store, recordings):
    store.fill(recordings)
    base = store[recordings[0]]
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_another_cnn_has_entries_of_its_own(store, tiny_backbone, recordings):
    store.fill(recordings[:1])
    changed = backbone.load(tiny_backbone)
    with torch.no_grad():
        changed.model.feature_extractor.conv_layers[0].conv.weight *= -1
    other = FeatureStore(store.root, changed, exact=True)
    np.testing.assert_array_equal(other[recordings[0]], truth(changed, recordings[0]))


def test_exact_and_half_precision_entries_live_side_by_side(store, tiny, recordings):
    exact = FeatureStore(store.root, tiny, exact=True)
    assert exact[recordings[0]].dtype == np.float32
    assert store[recordings[0]].dtype == np.float16
    assert exact[recordings[0]].dtype == np.float32


def test_progress_ends_at_the_total(store, recordings):
    calls = []
    store.fill(recordings, lambda *call: calls.append(call))
    count = len(recordings)
    assert calls == [("features", done, count) for done in range(1, count + 1)]


# --- workers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_features_do_not_depend_on_the_number_of_workers(
    tmp_path, tiny, recordings, workers, threads
):
    expected = [truth(tiny, u) for u in recordings]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        store = FeatureStore(tmp_path, tiny, exact=True, workers=workers)
        store.fill(recordings[:12])  # the others are computed when they are read
        for utterance, features in zip(recordings, expected, strict=True):
            np.testing.assert_array_equal(store[utterance], features)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_an_accelerators_batches_give_the_same_features(store, tiny, recordings, monkeypatch):
    """On a GPU similar lengths are encoded together; here on the CPU, but by the same way."""
    monkeypatch.setattr(FeatureStore, "_encode_all", FeatureStore._encode_on_device)
    exact = FeatureStore(store.root, tiny, exact=True)
    assert exact.fill(recordings) == []
    monkeypatch.setattr(FeatureStore, "_compute", None)  # everything is there
    for utterance in recordings:
        wave = tiny.prepare(audio.load(utterance.path))
        with torch.inference_mode():
            expected, _ = tiny.encode_cnn(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        np.testing.assert_allclose(exact[utterance], expected[0], atol=1e-5)


def test_an_accelerators_batches_report_bad_recordings(store, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureStore, "_encode_all", FeatureStore._encode_on_device)
    (tmp_path / "text.wav").write_text("not audio")
    bad = [Utterance(name, tmp_path / name) for name in ("text.wav", "missing.wav")]
    calls = []
    failures = store.fill([bad[0], *recordings[:3], bad[1]], lambda *call: calls.append(call))
    assert [error.path for error in failures] == [u.path for u in bad]
    assert len(entries(store)) == 3
    assert calls[-1] == ("features", 5, 5)


def _fill(folder: Path, tiny_backbone: Path, recordings: list[Utterance]) -> None:
    failures = FeatureStore(folder, backbone.load(tiny_backbone)).fill(recordings)
    assert not failures


def test_two_processes_fill_one_store_at_once(store, tiny_backbone, tiny, recordings, processes):
    order = [recordings, recordings[::-1]]
    started = [
        processes.Process(target=_fill, args=(store.root, tiny_backbone, pool)) for pool in order
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0, 0]
    assert len(entries(store)) == len(recordings)
    for utterance in recordings:
        np.testing.assert_array_equal(store[utterance], truth(tiny, utterance).astype("f2"))


# --- damage ----------------------------------------------------------------------------------


def _flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


DAMAGE = {
    "a flipped bit": _flip,
    "a flipped last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "truncated": lambda data: data[:-2],
    "longer": lambda data: data + b"\0\0",
    "header only": lambda data: data[:64],
    "half a header": lambda data: data[:20],
    "empty": lambda data: b"",
    "garbage header": lambda data: b"\xff" * 64 + data[64:],
    "another magic": lambda data: b"AFTERft0" + data[8:],
    "nothing but zeros": lambda data: b"\0" * len(data),
    "another dimension": lambda data: data[:12] + (7).to_bytes(4, "little") + data[16:],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("read", ["fill", "getitem", "frames", "pooled"])
def test_a_damaged_entry_is_computed_again(store, tiny, recordings, computed, damage, read):
    utterance = recordings[0]
    store.fill([utterance])
    expected = np.array(store[utterance])
    (entry,) = entries(store)
    entry.write_bytes(DAMAGE[damage](entry.read_bytes()))
    computed.clear()
    fresh = FeatureStore(store.root, tiny)
    reads = {
        "fill": lambda: fresh.fill([utterance]),
        "getitem": lambda: fresh[utterance],
        "frames": lambda: fresh.frames([utterance]),
        "pooled": lambda: fresh.pooled([utterance]),
    }
    reads[read]()
    np.testing.assert_array_equal(fresh[utterance], expected)
    assert computed == [utterance.id]
    fresh_bytes = entry.read_bytes()
    assert len(fresh_bytes) == 64 + expected.nbytes


def test_half_written_files_are_ignored(store, tiny, recordings, computed):
    store.fill(recordings[:2])
    for entry in entries(store):
        (entry.parent / ".new-abc123").write_bytes(entry.read_bytes()[:90])
    computed.clear()
    fresh = FeatureStore(store.root, tiny)
    assert fresh.fill(recordings[:2]) == []
    np.testing.assert_array_equal(fresh[recordings[0]], store[recordings[0]])
    assert computed == []


def test_a_failed_write_leaves_nothing_behind(store, recordings, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        store.fill(recordings[:1])
    assert [path for path in store.folder.rglob("*") if path.is_file()] == []


# --- recordings that change or are bad -------------------------------------------------------


def test_a_recording_replaced_by_another_is_computed_again(store, tiny, recordings, tmp_path):
    mine, other = copies(recordings[:2], tmp_path / "mine")
    store.fill([mine])
    store.frames([mine]), store.pooled([mine])
    shutil.copyfile(other.path, mine.path)
    expected = truth(tiny, other).astype("f2")
    assert store.frames([mine]).tolist() == [len(expected)]
    np.testing.assert_array_equal(store[mine], expected)
    np.testing.assert_array_equal(store.pooled([mine])[0], store.pooled([other])[0])


def test_a_recording_replaced_by_one_of_the_same_size_is_computed_again(
    store, tiny, recordings, tmp_path
):
    (mine,) = copies(recordings[:1], tmp_path / "mine")
    store.fill([mine])
    samples, rate = soundfile.read(mine.path)
    stat = os.stat(mine.path)
    soundfile.write(mine.path, -samples[::-1], rate)
    assert os.stat(mine.path).st_size == stat.st_size
    os.utime(mine.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert store.fill([mine]) == []
    np.testing.assert_array_equal(store[mine], truth(tiny, mine).astype("f2"))


def test_bad_recordings_are_reported_and_stop_nothing(store, recordings, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.wav").touch()
    (bad / "text.wav").write_text("not audio")
    soundfile.write(bad / "silent.wav", np.zeros(16_000), 16_000)
    paths = [bad / name for name in ("empty.wav", "text.wav", "silent.wav", "missing.wav")]
    pool = [Utterance(path.name, path) for path in paths]
    pool[1:1] = recordings[:2]
    pool += recordings[2:4]
    failures = store.fill(pool)
    assert [error.path for error in failures] == paths
    assert len(entries(store)) == 4


def test_bad_recordings_count_in_the_progress(store, recordings, tmp_path):
    calls = []
    pool = [*recordings[:2], Utterance("missing", tmp_path / "missing.wav")]
    store.fill(pool, lambda *call: calls.append(call))
    assert calls[-1][1] == calls[-1][2]


def test_reading_a_bad_recording_raises_its_error(store, tmp_path):
    with pytest.raises(audio.AudioError, match=r"missing\.wav"):
        store[Utterance("missing", tmp_path / "missing.wav")]


def test_limits_are_passed_on(tmp_path, tiny, recordings):
    store = FeatureStore(tmp_path, tiny, limits=AudioLimits(max_duration_s=0.2))
    assert len(store.fill(recordings)) == len(recordings)


# --- recordings whose files go ---------------------------------------------------------------


def test_a_recording_that_went_is_served_by_its_entry(store, tiny, recordings, tmp_path):
    (mine,) = copies(recordings[:1], tmp_path / "mine")
    store.fill([mine])
    expected, keys = np.array(store[mine]), store.keys([mine])
    mine.path.unlink()
    for reader in (store, FeatureStore(store.root, tiny)):
        assert reader.fill([mine]) == []
        assert reader.keys([mine]) == keys
        assert reader.frames([mine]).tolist() == [len(expected)]
        np.testing.assert_array_equal(reader[mine], expected)
        np.testing.assert_allclose(reader.pooled([mine])[0], expected.mean(axis=0), atol=1e-3)


def _read(folder: Path, tiny_backbone: Path, utterance: Utterance, expected: int) -> None:
    store = FeatureStore(folder, backbone.load(tiny_backbone))
    assert not utterance.path.exists()
    assert len(store[utterance]) == store.frames([utterance])[0] == expected


def test_another_process_serves_a_recording_that_went(
    store, tiny_backbone, recordings, tmp_path, processes
):
    (mine,) = copies(recordings[:1], tmp_path / "mine")
    store.fill([mine])
    frames = int(store.frames([mine])[0])
    mine.path.unlink()
    process = processes.Process(target=_read, args=(store.root, tiny_backbone, mine, frames))
    process.start()
    process.join(300)
    assert process.exitcode == 0


def test_the_last_version_of_a_recording_that_went_serves(store, tiny, recordings, tmp_path):
    mine, other = copies(recordings[:2], tmp_path / "mine")
    store.fill([mine])
    shutil.copyfile(other.path, mine.path)
    store.fill([mine])
    mine.path.unlink()
    np.testing.assert_array_equal(
        FeatureStore(store.root, tiny)[mine], truth(tiny, other).astype("f2")
    )


def test_a_recording_that_went_with_a_damaged_entry_is_reported(store, tiny, recordings, tmp_path):
    (mine,) = copies(recordings[:1], tmp_path / "mine")
    store.fill([mine])
    mine.path.unlink()
    (entry,) = entries(store)
    entry.write_bytes(_flip(entry.read_bytes()))
    with pytest.raises(audio.AudioError, match="does not exist"):
        FeatureStore(store.root, tiny)[mine]


def test_a_recording_behind_a_link_that_went_is_served(store, tiny, recordings, tmp_path):
    (mine,) = copies(recordings[:1], tmp_path / "mine")
    link = Utterance("link", tmp_path / "link.wav")
    link.path.symlink_to(mine.path)
    store.fill([mine])
    assert store.keys([link]) == store.keys([mine])
    mine.path.unlink()
    assert len(FeatureStore(store.root, tiny)[link]) == len(store[mine])


def test_keys_tell_recordings_and_their_versions_apart(store, recordings, tmp_path):
    mine, other = copies(recordings[:2], tmp_path / "mine")
    gone = Utterance("gone", tmp_path / "gone.wav")
    first = store.keys([mine, other, gone])
    assert {len(key) for key in first} == {32}
    assert len({key[:20] for key in first}) == 3
    assert [key.endswith("0" * 12) for key in first] == [False, False, True]
    os.utime(mine.path, ns=(0, 1))
    again = store.keys([mine, other, gone])
    assert again[1:] == first[1:]
    assert again[0] != first[0]
    assert again[0][:20] == first[0][:20]


def test_lengths_of_recordings_that_cannot_be_read_are_zero_where_errors_are_wanted(
    store, recordings, tmp_path
):
    gone = Utterance("gone", tmp_path / "gone.wav")
    errors: dict[int, audio.AudioError] = {}
    frames = store.frames([recordings[0], gone], errors)
    assert frames.tolist() == [len(store[recordings[0]]), 0]
    assert {index: error.path for index, error in errors.items()} == {1: gone.path}
    with pytest.raises(audio.AudioError, match=r"gone\.wav"):
        store.frames([gone])


# --- what an access costs --------------------------------------------------------------------


def test_a_pass_looks_at_a_file_once_and_single_accesses_do_not(store, recordings, monkeypatch):
    store.fill(recordings)
    looked: list[str] = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: looked.append(str(path)) or lstat(path))
    for utterance in recordings:
        store[utterance]
    assert looked == []
    store.frames(recordings)
    folder = recordings[0].path.parent
    assert [path for path in looked if Path(path).parent == folder] == [
        str(u.path) for u in recordings
    ]
    others = [path for path in looked if Path(path).parent != folder]
    assert len(others) <= len(folder.parts)  # the folder itself, followed once


def test_an_entry_is_checked_once_in_a_process(store, tiny, recordings, monkeypatch):
    store.fill(recordings)
    fresh = FeatureStore(store.root, tiny)
    headers, checks = [], []
    read_header, intact = features_on_disk.read_header, features_on_disk.intact
    monkeypatch.setattr(
        features_on_disk, "read_header", lambda *a: headers.append(a) or read_header(*a)
    )
    monkeypatch.setattr(features_on_disk, "intact", lambda *a: checks.append(a) or intact(*a))
    fresh.fill(recordings)
    fresh.frames(recordings)
    assert (len(headers), len(checks)) == (len(recordings), 0)  # data is not read
    for _ in range(2):
        for utterance in recordings:
            fresh[utterance]
        fresh.pooled(recordings)
    assert (len(headers), len(checks)) == (len(recordings), len(recordings))


# --- an accelerator's memory -----------------------------------------------------------------


def on_device(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, most: int
) -> list[tuple[int, int]]:
    """Makes the store encode as on an accelerator whose memory takes `most` padded samples.

    Returns the shapes that will have been tried.
    """
    monkeypatch.setattr(FeatureStore, "_encode_all", FeatureStore._encode_on_device)
    tried: list[tuple[int, int]] = []
    encode = store.backbone.encode_cnn

    def limited(waves: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(tuple(waves.shape))
        if waves.numel() > most:
            raise torch.OutOfMemoryError("out of memory")
        return encode(waves, lengths)

    monkeypatch.setattr(store.backbone, "encode_cnn", limited)
    return tried


def test_batches_on_an_accelerator_are_halved_where_memory_does_not_suffice(
    tmp_path, tiny_backbone, recordings, monkeypatch
):
    store = FeatureStore(tmp_path, backbone.load(tiny_backbone), exact=True)
    tried = on_device(store, monkeypatch, most=50_000)
    assert store.fill(recordings) == []
    monkeypatch.undo()
    for utterance in recordings:
        np.testing.assert_allclose(store[utterance], truth(store.backbone, utterance), atol=1e-5)
    failed = [shape for shape in tried if shape[0] * shape[1] > 50_000]
    assert [rows for rows, _ in failed] == [16, 8, 4]  # and not again for every batch
    assert max(rows for rows, _ in tried[len(failed) :]) > 1


def test_a_recording_too_long_for_an_accelerator_is_reported_and_stops_nothing(
    tmp_path, tiny_backbone, recordings, monkeypatch
):
    sizes = [soundfile.info(u.path).frames for u in recordings]
    store = FeatureStore(tmp_path, backbone.load(tiny_backbone))
    on_device(store, monkeypatch, most=max(sizes) - 1)
    failures = store.fill(recordings)
    assert [error.path for error in failures] == [recordings[int(np.argmax(sizes))].path]
    assert len(entries(store)) == len(recordings) - 1


def test_batches_on_an_accelerator_are_bounded_in_samples(
    tmp_path, tiny_backbone, recordings, monkeypatch
):
    store = FeatureStore(tmp_path, backbone.load(tiny_backbone))
    tried = on_device(store, monkeypatch, most=10**9)
    monkeypatch.setattr("after_model.features.store._MAX_SAMPLES", 60_000)
    store.fill(recordings)
    assert all(rows == 1 or rows * samples <= 60_000 for rows, samples in tried)
    assert sum(rows for rows, _ in tried) == len(recordings)
    assert len(tried) < len(recordings)


# --- size limit ------------------------------------------------------------------------------


def size_of(store: FeatureStore) -> int:
    return sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())


@pytest.fixture
def limited(tmp_path: Path, tiny: Backbone, recordings: list[Utterance]) -> FeatureStore:
    """A store that has room for about half of the recordings."""
    whole = FeatureStore(tmp_path / "whole", tiny)
    whole.fill(recordings)
    return FeatureStore(tmp_path / "limited", tiny, max_bytes=size_of(whole) // 2)


def test_the_size_limit_is_kept(limited, recordings):
    limited.fill(recordings[:8])
    limited.fill(recordings[8:])
    assert size_of(limited) <= limited.max_bytes


def test_a_pool_above_the_limit_stays_within_it(limited, recordings):
    limited.fill(recordings)
    assert size_of(limited) <= limited.max_bytes


def test_reading_what_was_evicted_stays_within_the_limit(limited, recordings):
    limited.fill(recordings)
    for utterance in recordings:
        limited[utterance]
        assert size_of(limited) <= limited.max_bytes


def test_a_pool_above_the_limit_does_not_evict_itself(limited, recordings, computed):
    """A second pass computes what there is no room for, and no more than that."""
    limited.fill(recordings)
    kept = entries(limited)
    assert len(kept) >= 6  # of 16, in a store that has room for about half
    computed.clear()
    for utterance in recordings:
        limited[utterance]
    assert len(computed) == len(recordings) - len(kept)
    assert entries(limited) == kept


def test_filling_again_does_not_compute_what_there_is_no_room_for(limited, recordings, computed):
    limited.fill(recordings)
    computed.clear()
    assert limited.fill(recordings) == []
    assert len(computed) <= limited.workers  # it takes one to see that nothing fits


def test_lengths_of_what_is_left_out_are_remembered(limited, recordings, computed):
    limited.fill(recordings)
    computed.clear()
    limited.frames(recordings)
    assert computed == []


def test_the_folder_is_not_listed_for_every_entry(limited, recordings, monkeypatch):
    listed = []
    evict = FeatureStore._evict
    monkeypatch.setattr(
        FeatureStore, "_evict", lambda self, *a, **o: listed.append(a) or evict(self, *a, **o)
    )
    limited.fill(recordings)
    listed.clear()
    for utterance in recordings:
        limited[utterance]
    assert listed == []


def test_the_longest_unused_go_first(tmp_path, tiny, recordings, computed):
    first = FeatureStore(tmp_path, tiny)
    first.fill(recordings)
    for age, utterance in enumerate(recordings):  # 0 was used last
        os.utime(first._look([utterance])[0].entry, ns=(0, 10**18 - age))
    limit = size_of(first) - 1
    FeatureStore(tmp_path, tiny, max_bytes=limit).fill([])
    computed.clear()
    FeatureStore(tmp_path, tiny).fill(recordings)
    assert computed == [recordings[-1].id]


def test_reading_an_entry_counts_as_using_it(tmp_path, tiny, recordings, computed):
    first = FeatureStore(tmp_path, tiny)
    first.fill(recordings)
    for age, utterance in enumerate(recordings):
        os.utime(first._look([utterance])[0].entry, ns=(0, 10**18 - age))
    FeatureStore(tmp_path, tiny)[recordings[-1]]
    FeatureStore(tmp_path, tiny, max_bytes=size_of(first) - 1).fill([])
    computed.clear()
    FeatureStore(tmp_path, tiny).fill(recordings)
    assert computed == [recordings[-2].id]


def test_what_was_just_asked_for_goes_last(limited, recordings, computed):
    limited.fill(recordings[:4])
    limited.fill(recordings[4:])
    limited.fill(recordings[:2])
    computed.clear()
    limited[recordings[0]], limited[recordings[1]]
    assert computed == []


def test_entries_of_a_cnn_no_longer_used_are_evicted_too(limited, tiny_backbone, recordings):
    old = backbone.load(tiny_backbone)
    with torch.no_grad():
        old.model.feature_extractor.conv_layers[0].conv.weight *= -1
    stale = FeatureStore(limited.root, old)
    stale.fill(recordings)
    limited.fill(recordings[:4])
    assert len(entries(limited)) == 4
    assert size_of(limited) <= limited.max_bytes


def test_eviction_never_makes_a_result_wrong(limited, tiny, recordings):
    rng = np.random.default_rng(0)
    for _ in range(5):
        limited.fill([recordings[i] for i in rng.choice(16, 6, replace=False)])
        chosen = [recordings[i] for i in rng.choice(16, 4)]
        lengths = [len(truth(tiny, u)) for u in chosen]
        assert limited.frames(chosen).tolist() == lengths
        for utterance in chosen:
            np.testing.assert_array_equal(limited[utterance], truth(tiny, utterance).astype("f2"))


def test_an_entry_that_vanishes_while_it_is_read_is_still_read(
    store, tiny, recordings, monkeypatch
):
    store.fill(recordings[:1])

    def evicted(path: Path, *_: object) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "utime", evicted)
    fresh = FeatureStore(store.root, tiny)
    np.testing.assert_array_equal(fresh[recordings[0]], store[recordings[0]])


def test_features_in_use_survive_their_eviction(limited, tiny, recordings):
    limited.fill(recordings[:1])
    features = limited[recordings[0]]
    limited.max_bytes = 0
    limited.fill([])
    assert entries(limited) == []
    np.testing.assert_array_equal(features, truth(tiny, recordings[0]).astype("f2"))


def test_eviction_leaves_alone_what_another_process_is_writing(limited, recordings):
    limited.fill(recordings[:1])
    (entry,) = entries(limited)
    being_written = entry.parent / ".new-of-another"
    being_written.write_bytes(b"\0" * limited.max_bytes)
    limited.fill(recordings[:2])
    assert being_written.exists()


def test_eviction_removes_what_a_killed_process_left(limited, recordings):
    limited.fill(recordings[:1])
    (entry,) = entries(limited)
    left = entry.parent / ".new-of-a-dead-one"
    left.touch()
    os.utime(left, (0, 0))
    limited.fill(recordings[:2])
    assert not left.exists()
