"""Folds: partitions, speakers kept apart, and determinism, for corpora of any shape."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simulate import data
from simulate.data import Corpus, Item, ReleasedFold
from simulate.data.loaders import ravdess
from simulate.protocols import (
    Fold,
    Protocol,
    ProtocolError,
    check_disjoint,
    folds_of,
    speaker_independent,
    split,
)

CLASSES = ("anger", "neutral", "sadness")
OF_ANY_CORPUS = ("speaker-independent", "paper-validation", "random")
some_examples = settings(max_examples=40, deadline=None)


def corpus_of(speakers: list[str], labels: list[str] | None = None) -> Corpus:
    labels = labels or [CLASSES[i % 3] for i in range(len(speakers))]
    items = [Item(f"u{i}", Path(f"{i}.wav"), speaker=s) for i, s in enumerate(speakers)]
    return Corpus.labelled("test", items, labels, CLASSES)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Corpus, int, float, int]:
    """A corpus with 3 to 9 speakers of uneven size, and arguments that it allows."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=3, max_size=9))
    speakers = draw(st.permutations([f"s{i}" for i, n in enumerate(sizes) for _ in range(n)]))
    labels = draw(st.lists(st.sampled_from(CLASSES), min_size=sum(sizes), max_size=sum(sizes)))
    folds = draw(st.integers(2, len(sizes)))
    assume(len(sizes) - -(-len(sizes) // folds) >= 2)  # speakers left for training, validation
    share = draw(st.floats(0.01, 0.9))
    return corpus_of(speakers, labels), folds, share, draw(st.integers(0, 1000))


def speakers_of(corpus: Corpus, indices: np.ndarray) -> set[str]:
    return {u.speaker for u in corpus.pick(indices)}


@pytest.mark.parametrize("protocol", OF_ANY_CORPUS)
@some_examples
@given(problem=problems())
def test_every_utterance_is_tested_exactly_once(protocol: str, problem: tuple) -> None:
    corpus, folds, share, seed = problem
    tested = np.concatenate([f.test for f in split(protocol, corpus, folds, share, seed)])
    assert sorted(tested) == list(range(len(corpus)))


@pytest.mark.parametrize("protocol", OF_ANY_CORPUS)
@some_examples
@given(problem=problems())
def test_the_parts_of_a_fold_partition_the_corpus(protocol: str, problem: tuple) -> None:
    corpus, folds, share, seed = problem
    for fold in split(protocol, corpus, folds, share, seed):
        together = np.concatenate(list(fold.parts().values()))
        assert sorted(together) == list(range(len(corpus)))
        assert all(len(part) for part in fold.parts().values())


@pytest.mark.parametrize("protocol", OF_ANY_CORPUS)
@some_examples
@given(problem=problems())
def test_the_same_seed_gives_the_same_folds(protocol: str, problem: tuple) -> None:
    corpus, folds, share, seed = problem
    first, second = (split(protocol, corpus, folds, share, seed) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert all(np.array_equal(one.parts()[p], other.parts()[p]) for p in one.parts())


@some_examples
@given(problem=problems())
def test_speaker_independent_parts_share_no_speaker(problem: tuple) -> None:
    corpus, folds, share, seed = problem
    for fold in speaker_independent(corpus, folds, share, seed):
        train, validation, test = (speakers_of(corpus, p) for p in fold.parts().values())
        assert len(train | validation | test) == len(train) + len(validation) + len(test)


@some_examples
@given(problem=problems())
def test_paper_validation_keeps_test_speakers_apart(problem: tuple) -> None:
    corpus, folds, share, seed = problem
    for fold in split("paper-validation", corpus, folds, share, seed):
        others = speakers_of(corpus, np.concatenate([fold.train, fold.validation]))
        assert not speakers_of(corpus, fold.test) & others


@some_examples
@given(problem=problems())
def test_folds_have_as_many_speakers_as_can_be(problem: tuple) -> None:
    corpus, folds, share, seed = problem
    counts = [
        len(speakers_of(corpus, f.test)) for f in speaker_independent(corpus, folds, share, seed)
    ]
    assert min(counts) >= 1
    assert max(counts) <= -(-len(corpus.speakers) // folds)


def test_both_speaker_protocols_test_on_the_same_folds() -> None:
    corpus = corpus_of([f"s{i % 7}" for i in range(90)])
    ours, papers = (split(p, corpus, 5) for p in ("speaker-independent", "paper-validation"))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(ours, papers, strict=True))


def test_another_seed_deals_equal_speakers_otherwise() -> None:
    corpus = corpus_of([f"s{i % 12}" for i in range(120)])
    first, second = (speaker_independent(corpus, seed=seed)[0].test for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_a_rare_class_is_spread_over_the_folds() -> None:
    speakers = [f"s{i // 10}" for i in range(100)]  # ten speakers; five of them are ever sad
    labels = ["sadness" if i % 20 == 0 else CLASSES[i % 2] for i in range(100)]
    corpus = corpus_of(speakers, labels)
    sad = [
        sum(corpus.labels[i] == "sadness" for i in f.test) for f in speaker_independent(corpus, 5)
    ]
    assert sad == [1, 1, 1, 1, 1]


def test_validation_speakers_come_nearest_to_the_share() -> None:
    sizes = {"a": 40, "b": 30, "c": 20, "d": 12, "e": 40, "f": 40}
    corpus = corpus_of([s for s, n in sizes.items() for _ in range(n)])
    fold = next(f for f in speaker_independent(corpus, 6) if speakers_of(corpus, f.test) == {"f"})
    assert speakers_of(corpus, fold.validation) == {"d"}  # 12 of 142, where 14.2 are wanted


def test_random_folds_are_stratified() -> None:
    corpus = corpus_of([""] * 100, ["anger"] * 60 + ["sadness"] * 40)
    for fold in split("random", corpus, 5):
        assert sum(corpus.labels[i] == "anger" for i in fold.test) == 12


def test_emodb_gives_five_folds_of_two_speakers(corpora: Path) -> None:
    corpus = data.load("emodb", corpora)
    folds = speaker_independent(corpus)
    assert [len(speakers_of(corpus, f.test)) for f in folds] == [2] * 5
    assert max(len(f.test) for f in folds) - min(len(f.test) for f in folds) <= 12


def test_ravdess_recording_released_twice_stays_in_one_part(corpora: Path) -> None:
    corpus = data.load("ravdess", corpora)
    twins = [i for i, u in enumerate(corpus.utterances) if u.id in ravdess.DUPLICATES]
    for fold in speaker_independent(corpus):
        assert any(set(twins) <= set(part) for part in fold.parts().values())


def test_a_corpus_without_speakers_names_the_way_out() -> None:
    with pytest.raises(ProtocolError, match="speaker column, or choose protocol='random'"):
        split("speaker-independent", corpus_of([""] * 20))


def test_too_few_speakers_are_named() -> None:
    with pytest.raises(ProtocolError, match=r"4 speakers \(s0, s1, s2, s3\) are too few for 5"):
        speaker_independent(corpus_of([f"s{i % 4}" for i in range(20)]), 5)


@pytest.mark.parametrize(("speakers", "folds"), [(2, 2), (3, 2)])
def test_a_fold_without_validation_is_refused(speakers: int, folds: int) -> None:
    with pytest.raises(ProtocolError, match="nothing is left for validation"):
        speaker_independent(corpus_of([f"s{i % speakers}" for i in range(20)]), folds)


def test_two_speakers_are_enough_for_papers_validation() -> None:
    assert len(split("paper-validation", corpus_of(["a", "b"] * 10), 2)) == 2


def test_a_corpus_too_small_for_its_folds_is_refused() -> None:
    with pytest.raises(ProtocolError, match="3 utterances are too few for 5 folds"):
        split("random", corpus_of([""] * 3))


@pytest.mark.parametrize(
    ("folds", "share", "message"),
    [(1, 0.1, "folds=1"), (5, -0.1, "validation_share=-0.1"), (5, 1.0, "validation_share=1.0")],
)
def test_impossible_arguments_are_refused(folds: int, share: float, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        speaker_independent(corpus_of([f"s{i % 9}" for i in range(90)]), folds, share)


def test_unknown_protocol_lists_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match="known: speaker-independent, paper-val"):
        split("loso", corpus_of(["a", "b", "c"]))


def fold_of(train: list[int], validation: list[int], test: list[int]) -> Fold:
    return Fold("fold-1", np.array(train), np.array(validation), np.array(test))


def test_overlap_of_speakers_is_an_error_that_names_them() -> None:
    corpus = corpus_of(["anna", "ben", "cleo", "anna"])
    with pytest.raises(ProtocolError, match="train and test share the speakers anna"):
        check_disjoint(corpus, fold_of([0], [1, 2], [3]))


def test_overlap_is_allowed_among_named_parts_only() -> None:
    corpus = corpus_of(["anna", "anna", "ben", "ben"])
    check_disjoint(corpus, fold_of([0], [1], [2, 3]), shared=frozenset({"train", "validation"}))
    with pytest.raises(ProtocolError, match="validation and test share the speakers ben"):
        check_disjoint(corpus, fold_of([0, 1], [2], [3]), shared=frozenset({"train", "validation"}))


def test_a_shared_utterance_is_an_error_everywhere() -> None:
    corpus = corpus_of(["anna", "ben", "cleo"])
    everywhere = frozenset({"train", "validation", "test"})
    with pytest.raises(ProtocolError, match="train and test share u0"):
        check_disjoint(corpus, fold_of([0], [1], [0, 2]), shared=everywhere)


# --- groups, releases, merged corpora, published folds


def grouped(groups: dict[str, list[str]], corpus: str = "talks", each: int = 6) -> list[Item]:
    """Items of speakers who were recorded together, `each` per speaker."""
    return [
        Item(f"{corpus}-{group}-{speaker}-{n}", Path(f"{speaker}-{n}.wav"), corpus, speaker, group)
        for group, speakers in groups.items()
        for speaker in speakers
        for n in range(each)
    ]


def labelled(items: list[Item]) -> Corpus:
    labels = [CLASSES[i % 3] for i in range(len(items))]
    return Corpus.labelled("test", items, labels, CLASSES)


SESSIONS = {"s1": ["a", "b"], "s2": ["c", "d"], "s3": ["e", "f"], "s4": ["g", "h"]}


def groups_of(corpus: Corpus, indices: np.ndarray) -> set[str]:
    return {corpus.items[i].group for i in indices}


def test_each_session_is_tested_once_and_validation_is_of_the_others() -> None:
    corpus = labelled(grouped(SESSIONS))
    folds = split("session", corpus)
    assert [groups_of(corpus, fold.test) for fold in folds] == [{s} for s in SESSIONS]
    for fold in folds:
        assert len(fold.validation) == round(0.1 * 36)
        assert not groups_of(corpus, fold.test) & groups_of(
            corpus, np.concatenate([fold.train, fold.validation])
        )


def test_speakers_who_were_recorded_together_stay_together() -> None:
    corpus = labelled(grouped(SESSIONS))
    for fold in split("speaker-independent", corpus, 2):
        parts = [groups_of(corpus, part) for part in fold.parts().values()]
        assert sum(map(len, parts)) == len(SESSIONS)


def test_a_speaker_of_two_sessions_binds_them() -> None:
    corpus = labelled(grouped({**SESSIONS, "s5": ["a"], "s6": ["i"], "s7": ["j"]}))
    for fold in split("speaker-independent", corpus, 3):
        holders = [p for p in fold.parts().values() if {"s1", "s5"} & groups_of(corpus, p)]
        assert len(holders) == 1


def test_overlap_of_groups_is_an_error_that_names_them() -> None:
    corpus = labelled(grouped({"s1": ["a", "b"]}, each=1))
    with pytest.raises(ProtocolError, match="train and test share the groups s1"):
        check_disjoint(corpus, fold_of([0], [], [1]))


def test_two_corpora_may_call_different_people_the_same() -> None:
    corpus = labelled(grouped({"": ["a"]}, "one", 1) + grouped({"": ["a"]}, "two", 1))
    check_disjoint(corpus, fold_of([0], [], [1]))


def test_a_corpus_without_sessions_can_not_leave_one_out() -> None:
    with pytest.raises(ProtocolError, match="belong to no session"):
        split("session", corpus_of(["a", "b"] * 4))


def parted(**sizes: int) -> Corpus:
    """Recordings of the parts named, each of a speaker of its own."""
    names = [part for part, size in sizes.items() for _ in range(size)]
    items = [
        Item(f"u{i}", Path(f"{i}.wav"), "test", f"s{i}", split=part) for i, part in enumerate(names)
    ]
    return labelled(items)


def test_the_official_split_leaves_other_parts_unused() -> None:
    corpus = parted(train=10, validation=4, test=5, kept=3)
    (fold,) = split("official", corpus)
    assert [len(part) for part in fold.parts().values()] == [10, 4, 5]
    assert fold.unused(len(corpus)).tolist() == [19, 20, 21]


def test_an_official_validation_part_trains_where_no_validation_is_wanted() -> None:
    (fold,) = split("official", parted(train=10, validation=4, test=5), validation_share=0)
    assert [len(part) for part in fold.parts().values()] == [14, 0, 5]


def test_where_the_test_part_is_kept_back_the_validation_part_is_tested() -> None:
    (fold,) = split("official", parted(train=20, validation=4))
    assert [len(part) for part in fold.parts().values()] == [18, 2, 4]


def test_a_corpus_without_parts_has_no_official_split() -> None:
    with pytest.raises(ProtocolError, match="name no training and test part"):
        split("official", corpus_of(["a", "b"] * 4))


def test_of_merged_corpora_those_that_are_not_tested_train_in_every_fold() -> None:
    corpus = labelled(grouped(SESSIONS) + grouped({"": ["x", "y"]}, "others"))
    protocol = Protocol("session", tested=("talks",))
    for fold in folds_of(protocol, corpus):
        assert {corpus.items[i].corpus for i in fold.test} == {"talks"}
        rest = {int(i) for i in (*fold.train, *fold.validation)}
        others = {i for i, item in enumerate(corpus.items) if item.corpus == "others"}
        assert others <= rest
        assert len(fold.validation) == round(0.1 * len(rest))


def test_a_merged_corpus_says_itself_what_is_tested() -> None:
    items = grouped(SESSIONS) + grouped({"": ["x"]}, "others")
    corpus = replace(labelled(items), tested=("talks",))
    tested = np.concatenate([fold.test for fold in split("session", corpus)])
    assert sorted(tested) == list(range(48))


def test_a_corpus_that_is_not_merged_can_not_be_tested() -> None:
    with pytest.raises(ProtocolError, match="iemocap is not in it; in it: talks"):
        folds_of(Protocol("session", tested=("iemocap",)), labelled(grouped(SESSIONS)))


def write_folds(folder: Path, *folds: tuple[list[str], list[str]]) -> Path:
    """EmoBox's files of (train, test) names."""
    for number, parts in enumerate(folds, 1):
        (folder / f"fold_{number}").mkdir(parents=True)
        for part, names in zip(("train", "test"), parts, strict=True):
            lines = [json.dumps({"key": f"x-{n}", "wav": f"downloads/{n}.wav"}) for n in names]
            path = folder / f"fold_{number}" / f"x_{part}_fold_{number}.jsonl"
            path.write_text("\n".join(lines) + "\n")
    return folder


def named(*names: str) -> Corpus:
    """Recordings `SPEAKER-TAKE`."""
    items = [Item(n, Path(f"/audio/{n}.wav"), "x", n.partition("-")[0]) for n in names]
    return labelled(items)


def test_emobox_files_give_the_folds_and_leave_the_rest_unused(tmp_path: Path) -> None:
    corpus = named("a-1", "a-2", "b-1", "c-1", "d-1")
    folder = write_folds(tmp_path, (["a-1", "a-2"], ["b-1"]), (["b-1"], ["a-2", "gone"]))
    found = folds_of(Protocol("emobox", validation_share=0, files=folder), corpus)
    assert [[p.tolist() for p in f.parts().values()] for f in found] == [
        [[0, 1], [], [2]],
        [[2], [], [1]],
    ]
    assert found[0].unused(len(corpus)).tolist() == [3, 4]


def test_emobox_folds_that_share_speakers_need_the_name_that_says_so(tmp_path: Path) -> None:
    folder = write_folds(tmp_path, (["a-1", "b-1"], ["a-2"]))
    corpus = named("a-1", "a-2", "b-1")
    strict = Protocol("emobox", validation_share=0, files=folder)
    with pytest.raises(ProtocolError, match="train and test share the speakers a"):
        folds_of(strict, corpus)
    assert len(folds_of(replace(strict, name="emobox-speakers-shared"), corpus)) == 1


def test_folds_of_another_corpus_are_refused(tmp_path: Path) -> None:
    folder = write_folds(tmp_path, (["p-1", "p-2"], ["q-1"]))
    with pytest.raises(ProtocolError, match="the folds of another corpus"):
        folds_of(Protocol("emobox", files=folder), named("a-1", "b-1"))


@pytest.mark.parametrize("content", ["no json\n", "[]\n", '{"key": 1, "wav": "a.wav"}\n'])
def test_a_broken_fold_file_names_the_line(tmp_path: Path, content: str) -> None:
    folder = write_folds(tmp_path, (["a-1"], ["b-1"]))
    next(folder.glob("fold_1/*_test_*")).write_text(content)
    with pytest.raises(ProtocolError, match="line 1"):
        folds_of(Protocol("emobox", files=folder), named("a-1", "b-1"))


def test_a_corpus_may_bring_its_published_folds() -> None:
    corpus = replace(
        named("a-1", "b-1", "c-1"), folds=(ReleasedFold("fold-1", ("a-1",), ("b-1",)),)
    )
    (fold,) = folds_of(Protocol("emobox", validation_share=0), corpus)
    assert [p.tolist() for p in fold.parts().values()] == [[0], [], [1]]


def test_whether_a_protocol_is_transductive_is_part_of_its_name() -> None:
    protocol = Protocol("session", tested=("iemocap",), transductive=True)
    assert protocol.title == "session, tested on iemocap, transductive"
