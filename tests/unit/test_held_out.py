"""Held-out labels: stratified, apart by speaker where speakers are known, never learnt before."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from after_model.active_learning.held_out import held_out

CLASSES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.integers(0, 2))


def people(classes: dict[str, int], count: int) -> dict[str, str]:
    return {key: f"speaker {len(key) * 31 % count}" for key in classes}


@given(CLASSES, st.floats(0, 0.9))
def test_what_is_held_out_is_labelled_and_distinct(classes, share):
    found = held_out(classes, {}, share)
    assert len(set(found)) == len(found)
    assert set(found) <= set(classes)


@given(CLASSES, st.floats(0.01, 0.9))
def test_every_class_gives_its_share(classes, share):
    found = Counter(classes[key] for key in held_out(classes, {}, share))
    assert all(found[k] == round(share * n) for k, n in Counter(classes.values()).items())


@given(CLASSES, st.floats(0.01, 0.9), st.integers(1, 4))
def test_no_speaker_is_on_both_sides(classes, share, count):
    speakers = people(classes, count)
    found = set(held_out(classes, speakers, share))
    rest = set(classes) - found
    assert not {speakers[k] for k in found} & {speakers[k] for k in rest}


@given(CLASSES, st.floats(0.01, 0.9), st.integers(0, 4))
def test_what_a_model_has_learnt_from_is_never_held_out(classes, share, count):
    speakers = people(classes, count) if count else {}
    trained = sorted(classes)[::2]
    assert not set(held_out(classes, speakers, share, trained=trained)) & set(trained)


@given(CLASSES, CLASSES, st.floats(0.01, 0.9))
def test_what_is_held_out_once_stays_so(before, later, share):
    held = held_out(before, {}, share)
    found = held_out(before | later, {}, share, held=held, trained=set(before) - set(held))
    assert found[: len(held)] == held


def test_too_few_to_judge_by_are_all_learnt_from():
    classes = {str(i): i % 2 for i in range(10)}
    assert held_out(classes, {}, 0.2, least=2) != []
    assert held_out(classes, {}, 0.2, least=3) == []


def test_a_recording_of_a_held_out_speaker_joins_them():
    classes = {str(i): i % 2 for i in range(8)}
    speakers = {key: "ann" if int(key) < 2 else "bob" for key in classes}
    assert set(held_out(classes, speakers, 0.25)) == {"0", "1"}
    classes["8"], speakers["8"] = 0, "ann"
    trained = {str(i) for i in range(2, 8)}
    assert set(held_out(classes, speakers, 0.25, held=["0", "1"], trained=trained)) == {
        "0", "1", "8",
    }  # fmt: skip
