"""Audit labels: which are drawn, and what they say of the rest of the pool."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from after_model.active_learning import audit, drawing
from after_model.active_learning.audit import LEAST, Interval
from after_model.active_learning.quality import too_few
from after_model.classifier.calibration import class_offsets


def made(rng: np.random.Generator, size: int, classes: int = 4, belief: float = 1.0):
    """(believed probabilities [N, C], true classes [N]): they are drawn from softmax(z), and the
    model believes softmax(belief * z)."""
    logits = rng.normal(0, 2, (size, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (true.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1).clip(max=classes - 1)
    said = np.exp(belief * logits)
    return said / said.sum(axis=1, keepdims=True), labels


def truth(probs: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    right = probs.argmax(axis=1) == labels
    return float(right.mean()), float(np.mean([right[labels == c].mean() for c in set(labels)]))


# --- which, and where ---


def test_an_audit_does_not_change_when_the_pool_grows():
    few, many = drawing.order(map(str, range(50)), 0), drawing.order(map(str, range(200)), 0)
    assert [name for name in many if int(name) < 50] == few


def test_another_seed_audits_others():
    ids = [str(i) for i in range(50)]
    assert drawing.order(ids, 0)[:10] != drawing.order(ids, 1)[:10]


@given(st.integers(0, 5_000), st.floats(0.001, 0.5))
def test_audits_that_are_due_grow_with_the_labels_and_end_at_their_share(labels, share):
    due = drawing.due(labels, share)
    assert due <= drawing.due(labels + 1, share) <= due + 1
    if labels >= LEAST / share:
        assert abs(due - share * labels) <= 1


def test_nothing_is_due_without_a_share():
    assert drawing.due(1_000, 0.0) == 0


@given(
    st.integers(0, 60),
    st.integers(0, 200),
    st.integers(0, 30),
    st.floats(0, 0.5),
    st.integers(0, 9),
)
def test_mixed_asks_for_each_once_and_for_as_many_as_are_wanted(k, labels, held, share, seed):
    wanted = [str(i) for i in range(k)]
    order = drawing.order(map(str, range(100)), seed)
    asked, drawn = drawing.mixed(wanted, order, labels=labels, held=held, share=share)
    assert len(asked) == len(set(asked)) == k
    assert [name for name in asked if name not in drawn] == [
        n for n in wanted if n in asked and n not in drawn
    ]
    assert held + len(drawn) <= max(held, drawing.due(labels + k, share))


def test_what_is_wanted_more_is_no_audit():
    """It is labelled for being wanted, so its audit goes to the next."""
    wanted = [str(i) for i in range(16)]
    asked, drawn = drawing.mixed(wanted, ["0", "77"], labels=0, held=0, share=0.1)
    assert asked[:9] == [*wanted[:8], "77"]
    assert drawn == ["77"]


def test_audits_that_are_overdue_come_apart():
    """As where a project of an earlier release has 400 labels and no audit."""
    wanted = [str(i) for i in range(40)]
    asked, drawn = drawing.mixed(
        wanted, [f"a{i}" for i in range(99)], labels=400, held=0, share=0.05
    )
    assert [asked.index(name) for name in drawn] == list(range(0, 40, 4))


# --- what they say ---


def wilson(right: int, n: int) -> tuple[float, float]:
    """Wilson's score interval with Student's quantile (Wilson 1927)."""
    z, share = student.ppf(0.975, n - 1), right / n
    centre, width = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (centre - width) / (1 + z**2 / n), (centre + width) / (1 + z**2 / n)


@pytest.mark.parametrize(("right", "n"), [(10, 10), (9, 12), (20, 40), (3, 25), (180, 200)])
def test_where_every_belief_is_the_same_the_interval_is_wilsons(right, n):
    """Two classes, one predicted everywhere: nothing to learn from beliefs. Class shares are
    corrected by audit labels first, which a tilt takes back."""
    rest = np.tile([0.7, 0.3], (20_000, 1))
    classes = np.array([0] * right + [1] * (n - right))
    found = audit.judge(rest, rest[:n], classes).accuracy
    assert found is not None
    low, high = wilson(right, n)
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(min(high, 1.0), abs=0.01)


@pytest.mark.parametrize("belief", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("n", [12, 60])
def test_intervals_cover_what_is_true_whatever_the_model_believes(belief, n):
    """200 pools, beliefs too modest, right, and far too sure. Of 95 %, by chance 181 and more; less
    by a few where a model is far too sure."""
    covered, errors = np.zeros(2), []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        probs, labels = made(rng, 300 + n, belief=belief)
        found = audit.judge(probs[n:], probs[:n], labels[:n])
        for i, (true, told) in enumerate(
            zip(truth(probs[n:], labels[n:]), (found.accuracy, found.ua), strict=True)
        ):
            assert told is not None
            covered[i] += told.low <= true <= told.high
        errors.append(found.accuracy.value - truth(probs[n:], labels[n:])[0])
    assert (covered >= 178).all(), covered
    assert abs(np.mean(errors)) < 0.035


def test_beliefs_that_are_right_make_an_interval_narrower_than_labels_alone():
    rng = np.random.default_rng(0)
    widths = []
    for _ in range(20):
        probs, labels = made(rng, 4_040)  # the rest is large: Wilson's is for an endless one
        found = audit.judge(probs[40:], probs[:40], labels[:40]).accuracy
        right = int((probs[:40].argmax(axis=1) == labels[:40]).sum())
        low, high = wilson(right, 40)
        widths.append((found.high - found.low) / (high - low))
    assert np.mean(widths) < 0.95


def test_with_all_labels_audited_the_estimate_is_the_truth():
    probs, labels = made(np.random.default_rng(1), 4_000, belief=0.4)
    found = audit.judge(probs, probs, labels)
    accuracy, ua = truth(probs, labels)
    assert found.accuracy.value == pytest.approx(accuracy, abs=0.005)
    assert found.ua.value == pytest.approx(ua, abs=0.005)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(LEAST, 40))
def test_an_estimate_lies_in_its_interval_and_that_in_0_to_1(seed, classes, n):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(classes, 0.3), 80)
    labels = rng.integers(0, classes, n)
    found = audit.judge(probs[n:], probs[:n], labels)
    for told in (found.accuracy, found.ua, *found.recalls):
        assert told is None or 0 <= told.low <= told.value <= told.high <= 1 + 1e-9


def test_ten_right_of_ten_are_not_all_that_certain():
    probs = np.tile([0.8, 0.2], (200, 1))
    found = audit.judge(probs, probs[:10], np.zeros(10, int)).accuracy
    assert found.value < 1
    assert found.low < 0.75


@pytest.mark.parametrize("n", [0, 1, LEAST - 1])
def test_no_number_from_fewer_labels_than_can_carry_it(n):
    probs, labels = made(np.random.default_rng(0), 100)
    found = audit.judge(probs, probs[:n], labels[:n])
    assert (found.accuracy, found.ua) == (None, None)
    assert set(found.recalls) == {None}
    assert found.missing == LEAST - n
    assert min(found.missing_of_class) >= LEAST - n


def test_a_rare_class_waits_for_more_labels():
    rng = np.random.default_rng(0)
    probs, _ = made(rng, 600)
    rare = np.log(probs) - np.array([3, 0, 0, 0])
    probs = np.exp(rare) / np.exp(rare).sum(axis=1, keepdims=True)
    found = audit.judge(probs[40:], probs[:40], probs[:40].argmax(axis=1))
    assert found.recalls[0] is None
    assert found.missing_of_class[0] > 0
    assert None not in found.recalls[1:]


def test_a_gain_is_that_of_the_model_over_the_one_before():
    """The one before says class 0 wherever it would have said 1."""
    covered, errors = 0, []
    for seed in range(100):
        probs, labels = made(np.random.default_rng(seed), 540)
        before = np.where(probs.argmax(axis=1) == 1, 0, probs.argmax(axis=1))
        found = audit.gained(probs[40:], before[40:], probs[:40], before[:40], labels[:40])
        worse = np.eye(4)[before]
        true = truth(probs[40:], labels[40:])[1] - truth(worse[40:], labels[40:])[1]
        covered += found.low <= true <= found.high
        errors.append(found.value - true)
    assert covered >= 90
    assert abs(np.mean(errors)) < 0.03


def test_the_next_point_takes_what_a_logarithmic_curve_says():
    found = audit.next_point(100, 50, Interval(0.07, 0.035, 0.14))
    assert found.value == round(100 * (2 ** (1 / 7) - 1) + 0.5)
    assert found.low < found.value < found.high
    assert audit.promised(Interval(0.07, 0, 0), 100, 50, 100) == pytest.approx(0.07)


def test_the_next_point_may_never_come():
    found = audit.next_point(100, 50, Interval(0.02, -0.01, 0.05))
    assert found.value is not None
    assert found.high is None
    assert audit.next_point(100, 50, Interval(-0.02, -0.1, -0.01)).value is None


def test_class_offsets_are_the_likeliest():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(30, 3)), np.eye(3)[rng.integers(0, 3, 30)]
    found = class_offsets(logits, targets, strength=2.0)
    said = np.exp(logits + found)
    said /= said.sum(axis=1, keepdims=True)
    assert (targets - said).sum(axis=0) == pytest.approx(2.0 * found, abs=1e-3)
    assert class_offsets(logits[:0], targets[:0], strength=2.0) == pytest.approx(np.zeros(3))


def test_too_few_say_how_many_are_missing():
    found = too_few(("a", "b"), 4, 100, 20)
    assert (found.ua, found.missing, found.missing_of_class) == (None, 6, {"a": 6, "b": 6})
