"""The probe: against scikit-learn, with soft, few and absent labels; calibration; speakers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from after_model import metrics
from after_model.classifier.calibration import fit_temperature
from after_model.classifier.folds import held_out_folds
from after_model.classifier.probe import ProbeConfig, Standardiser, fit
from after_model.classifier.speakers import SpeakerMeans

EXACT = ProbeConfig(tolerance=1e-6, calibrate=False)


def made_up(n, dimensions, classes=3, seed=0, spread=1.0):
    """Points around a centre a class, and the classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = np.random.default_rng(99).normal(size=(classes, dimensions))
    return spread * centres[y] + rng.normal(size=(n, dimensions)), y


def probed(points, targets, pool=None, **options):
    options.setdefault("config", ProbeConfig())
    return fit(
        points, targets, statistics=Standardiser.of(points if pool is None else pool), **options
    )


@pytest.mark.parametrize("n", [30, 90], ids=["fewer rows than numbers", "more rows than numbers"])
@pytest.mark.parametrize("inverse_regularisation", [0.01, 0.1, 10.0])
def test_without_calibration_it_is_scikit_learns_regression(n, inverse_regularisation):
    points, y = made_up(n, 60)
    config = ProbeConfig(inverse_regularisation, tolerance=1e-6, calibrate=False)
    said = probed(points, np.eye(3)[y], config=config).probs(points)
    scaled = StandardScaler().fit_transform(points)
    oracle = LogisticRegression(C=inverse_regularisation, tol=1e-9, max_iter=5_000).fit(scaled, y)
    np.testing.assert_allclose(said, oracle.predict_proba(scaled), atol=1e-4)


def test_several_states_are_seen_as_the_mean_of_each_standardised():
    points, y = made_up(40, 30)
    config = ProbeConfig(states=3, tolerance=1e-6, calibrate=False)
    said = probed(points, np.eye(3)[y], config=config).probs(points)
    seen = StandardScaler().fit_transform(points).reshape(40, 3, 10).mean(axis=1)
    oracle = LogisticRegression(C=config.inverse_regularisation, tol=1e-9, max_iter=5_000)
    np.testing.assert_allclose(said, oracle.fit(seen, y).predict_proba(seen), atol=1e-4)


def test_a_soft_target_is_so_many_votes():
    points, y = made_up(20, 8)
    soft = np.eye(3)[y] * 0.5 + np.eye(3)[(y + 1) % 3] * 0.25 + np.eye(3)[(y + 2) % 3] * 0.25
    votes = np.concatenate([y, y, (y + 1) % 3, (y + 2) % 3])
    scaled = StandardScaler().fit_transform(points)
    oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=5_000)
    oracle.fit(np.tile(scaled, (4, 1)), votes, sample_weight=np.full(80, 0.25))
    said = probed(points, soft, config=EXACT).probs(points)
    np.testing.assert_allclose(said, oracle.predict_proba(scaled), atol=1e-4)


@given(
    st.integers(0, 25),
    st.integers(2, 6),
    st.integers(0, 2**16),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_few_labels_give_probabilities_of_all_classes(n, classes, seed, soft, speakers):
    rng = np.random.default_rng(seed)
    pool = rng.normal(size=(40, 5))
    targets = np.eye(classes)[rng.integers(0, max(1, classes - 1), n)]
    if soft:
        targets = rng.dirichlet(np.full(classes, 0.3), n)
    names = [str(number) for number in rng.integers(0, 4, n)] if speakers else None
    means = SpeakerMeans(5)
    means.add(pool, [str(number) for number in rng.integers(0, 4, 40)])
    probe = fit(pool[:n], targets, statistics=Standardiser.of(pool), speakers=names, means=means)
    probs = probe.probs(pool)
    assert probs.shape == (40, classes)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)
    assert (probs > 0).all()
    held_out = probe.validation.probs
    assert held_out.shape in {(0, classes), (n, classes)}
    np.testing.assert_allclose(held_out.sum(axis=1), 1.0)


def test_no_label_is_the_uniform_prior():
    pool, _ = made_up(20, 4)
    probe = fit(pool[:0], np.zeros((0, 4)), statistics=Standardiser.of(pool))
    np.testing.assert_allclose(probe.probs(pool), 0.25)
    assert probe.cross_validated == {}


def test_labels_of_one_class_make_it_likelier_the_more_there_are():
    pool, _ = made_up(20, 4)
    few, many = (probed(pool[:n], np.eye(3)[np.ones(n, int)], pool).probs(pool)[0] for n in (1, 10))
    assert few[1] < many[1] < 1
    assert few[0] == few[2] > many[0] > 0


def test_a_class_without_a_label_is_likelier_where_the_others_are_in_doubt():
    points, y = made_up(60, 6, spread=2.0)
    centres = np.array([points[y == label].mean(axis=0) for label in range(3)])
    probe = probed(points, np.eye(4)[y])
    sure, doubtful = probe.probs(np.stack([centres[0], centres.mean(axis=0)]))[:, 3]
    assert 0 < sure < doubtful < 0.25
    assert probe.probs(points)[:, 3].mean() == pytest.approx(1 / 63, rel=0.5)


def test_calibration_lowers_the_calibration_error_on_labels_not_seen():
    points, y = made_up(3_120, 100, spread=0.15)
    train, test = slice(0, 120), slice(120, None)
    raw, calibrated = (
        metrics.expected_calibration_error(
            y[test],
            probed(
                points[train], np.eye(3)[y[train]], points, config=ProbeConfig(10.0, calibrate=on)
            ).probs(points[test]),
        )
        for on in (False, True)
    )
    assert raw > 0.2
    assert calibrated < raw / 1.8


def test_temperature_is_the_prior_without_labels_and_the_likeliest_with_many():
    nothing = np.zeros((0, 3))
    assert fit_temperature(nothing, nothing, prior=1.3, strength=10) == pytest.approx(1.3, rel=1e-3)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5_000, 3)) * 2
    y = [rng.choice(3, p=row) for row in softmax(logits, axis=1)]
    found = fit_temperature(logits * 3, np.eye(3)[y], prior=1.0, strength=10)
    assert found == pytest.approx(3, rel=0.1)


def test_cross_validated_probabilities_come_from_fits_without_the_row():
    """Moving one label does not move what its own fold says of it, temperature aside."""
    points, y = made_up(30, 8)
    config = ProbeConfig(calibrate=False, folds=5)
    probe = probed(points, np.eye(3)[y], config=config)
    split = probe.validation.folds
    scaled = StandardScaler().fit_transform(points)
    for fold in range(5):
        rest, held = split != fold, split == fold
        oracle = LogisticRegression(C=0.1, tol=1e-9, max_iter=5_000).fit(scaled[rest], y[rest])
        expected = oracle.predict_proba(scaled[held])
        np.testing.assert_allclose(probe.validation.probs[held], expected, atol=0.02)


@pytest.mark.parametrize("classes", [[0], [0, 0, 0], [0, 1], [0, 0, 1, 2]])
def test_too_few_labels_estimate_nothing(classes):
    points = np.random.default_rng(1).normal(size=(len(classes), 3))
    assert probed(points, np.eye(3)[classes]).cross_validated == {}


def test_the_same_input_gives_the_same_bits():
    points, y = made_up(60, 100)
    first, second = (probed(points, np.eye(3)[y]) for _ in range(2))
    np.testing.assert_array_equal(first.weight, second.weight)
    np.testing.assert_array_equal(first.bias, second.bias)


def test_half_precision_and_memory_maps_are_read(tmp_path):
    points, y = made_up(60, 10)
    np.save(tmp_path / "points.npy", points.astype(np.float16))
    mapped = np.load(tmp_path / "points.npy", mmap_mode="r")
    near = probed(mapped, np.eye(3)[y]).probs(mapped)
    np.testing.assert_allclose(near, probed(points, np.eye(3)[y]).probs(points), atol=0.01)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_do_not_change_the_standardiser(block):
    points = np.random.default_rng(0).normal(100, 2, size=(50, 3)).astype(np.float32)
    points[:, 1] = 5
    found = Standardiser.of(points, block)
    np.testing.assert_allclose(found.mean, points.mean(axis=0, dtype=float))
    np.testing.assert_allclose(found.deviation[[0, 2]], points[:, [0, 2]].std(axis=0, dtype=float))
    assert found.deviation[1] == 1


def test_points_of_another_representation_are_refused():
    points, y = made_up(20, 10)
    with pytest.raises(ValueError, match="another representation"):
        probed(points, np.eye(3)[y]).probs(points[:, :5])


# --- dropped features ---------------------------------------------------------------------------


def test_a_sample_is_one_model_for_all_rows():
    points, y = made_up(40, 20)
    probe = probed(points, np.eye(3)[y])
    twice = np.concatenate([points, points])
    probs = probe.mc_probs(twice, 5, np.random.default_rng(0), rate=0.5)
    assert probs.shape == (5, 80, 3)
    np.testing.assert_allclose(probs[:, :40], probs[:, 40:])
    assert np.abs(probs[0] - probs[1]).max() > 0.01


def test_nothing_dropped_is_the_probe_itself():
    points, y = made_up(40, 20)
    probe = probed(points, np.eye(3)[y])
    probs = probe.mc_probs(points, 2, np.random.default_rng(0), rate=0.0)
    np.testing.assert_allclose(probs, np.stack([probe.probs(points)] * 2))


# --- speakers -----------------------------------------------------------------------------------


def spoken(n=240, speakers=8, away=6.0, seed=0):
    """(points, classes, speakers): every speaker stands somewhere else, and that is all noise."""
    points, y = made_up(n, 10, seed=seed)
    rng = np.random.default_rng(seed + 1)
    who = rng.integers(0, speakers, n)
    points = points + away * rng.normal(size=(speakers, 10))[who]
    return points, y, [f"s{number}" for number in who]


def with_speakers(points, y, names, kappa=10.0, classes=3):
    means = SpeakerMeans(points.shape[1], kappa)
    means.add(points, names)
    return probed(points, np.eye(classes)[y], speakers=names, means=means)


def test_speakers_means_are_taken_off_where_that_helps():
    points, y, names = spoken()
    report = with_speakers(points, y, names).speakers
    assert report.used
    assert report.with_loss < report.without_loss
    assert report.with_ua > report.without_ua


def test_a_constant_per_speaker_changes_nothing_without_shrinkage():
    points, y, names = spoken()
    moved = points + np.random.default_rng(5).normal(size=(8, 10))[[int(s[1:]) for s in names]]
    statistics = Standardiser.of(points)
    said = []
    for variant in (points, moved):
        means = SpeakerMeans(10, kappa=0.0)
        means.add(variant, names)
        # the pool's mean moves with the constants: the same for everyone, so the bias takes it
        probe = fit(variant, np.eye(3)[y], statistics=statistics, speakers=names, means=means)
        assert probe.speakers.used
        said.append(probe.probs(variant, names))
    np.testing.assert_allclose(said[0], said[1], atol=5e-3)


def test_an_unknown_speaker_loses_nothing():
    points, y, names = spoken()
    probe = with_speakers(points, y, names)
    unknown = probe.logits(points, ["never heard"] * len(points))
    np.testing.assert_array_equal(unknown, probe.logits(points))
    np.testing.assert_array_equal(unknown, probe.logits(points, [""] * len(points)))
    assert np.abs(unknown - probe.logits(points, names)).max() > 0.1


def test_speakers_of_one_emotion_each_are_no_harm():
    points, _ = made_up(120, 10, spread=1.5)
    names = [f"s{row % 12}" for row in range(120)]  # speaker s says emotion s % 3 only
    y = np.array([int(name[1:]) % 3 for name in names])
    probe = with_speakers(points, y, names)
    assert not probe.speakers.used
    plain = probed(points, np.eye(3)[y], speakers=names)
    np.testing.assert_array_equal(probe.probs(points, names), plain.probs(points))


def test_speakers_of_one_recording_are_no_harm():
    points, y = made_up(60, 10, spread=1.5)
    names = [f"s{row}" for row in range(60)]
    probe = with_speakers(points, y, names)
    plain = probed(points, np.eye(3)[y], speakers=names)
    said, expected = (
        metrics.evaluate(y, p)["ua"] for p in (probe.probs(points, names), plain.probs(points))
    )
    assert said >= expected - 0.02


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_speaker_means_do_not_depend_on_how_they_came(sizes, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    points = rng.normal(size=(n, 3))
    names = [str(rng.integers(0, 3)) if rng.random() < 0.8 else "" for _ in range(n)]
    whole, parts = SpeakerMeans(3, 4.0), SpeakerMeans(3, 4.0)
    whole.add(points, names)
    start = 0
    for size in sizes:
        parts.add(points[start : start + size], names[start : start + size])
        parts = SpeakerMeans.from_arrays(parts.arrays())
        start += size
    np.testing.assert_allclose(
        parts.offsets()[parts.rows(names)], whole.offsets()[whole.rows(names)], atol=1e-12
    )


def test_offsets_shrink_with_few_recordings():
    means = SpeakerMeans(1, kappa=10.0)
    means.add(np.array([[1.0]] * 10 + [[-1.0]] * 10), ["a"] * 10 + ["b"] * 10)
    np.testing.assert_allclose(means.offsets(), [[0.5], [-0.5], [0.0]])


# --- folds --------------------------------------------------------------------------------------


def test_folds_that_speakers_leave_empty_are_not_counted():
    """scikit-learn's splitter leaves one of five without a recording here."""
    targets = np.eye(4)[[1, 1, 1, 3, 1, 1, 1, 0, 2]]
    split = held_out_folds(targets, [str(s) for s in (2, 1, 1, 3, 4, 1, 0, 2, 2)], 10, 0)
    assert set(split.tolist()) == set(range(split.max() + 1))
    points = np.random.default_rng(0).normal(size=(9, 5))
    probe = fit(
        points, targets, statistics=Standardiser.of(points),
        speakers=[str(s) for s in (2, 1, 1, 3, 4, 1, 0, 2, 2)],
    )  # fmt: skip
    assert np.isfinite(probe.validation.probs).all()


@given(st.integers(4, 40), st.integers(1, 9), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_any_mix_of_speakers_gives_probabilities(n, speakers, seed):
    """Speakers of very unequal size leave folds empty; numbers must go on to be numbers."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 6))
    targets = np.eye(3)[rng.integers(0, 3, n)]
    names = [str(number) for number in rng.geometric(0.6, n).clip(max=speakers)]
    probe = fit(points, targets, statistics=Standardiser.of(points), speakers=names)
    probs = probe.probs(points)
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)
    assert all(np.isfinite(value) for value in probe.cross_validated.values())


@given(st.integers(2, 60), st.integers(2, 6), st.integers(1, 12), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_no_speaker_is_in_two_folds(n, folds, speakers, seed):
    rng = np.random.default_rng(seed)
    targets = np.eye(4)[rng.integers(0, 4, n)]
    names = [str(number) for number in rng.integers(0, speakers, n)]
    split = held_out_folds(targets, names, folds, seed)
    assert split.max() < folds
    assert set(split.tolist()) == set(range(split.max() + 1))
    if len(set(names)) > 1:
        for name in set(names):
            assert len({int(f) for f, own in zip(split, names, strict=True) if own == name}) == 1


@given(st.integers(2, 6), st.integers(0, 2**16))
@settings(max_examples=30, deadline=None)
def test_without_speakers_classes_are_spread_evenly(folds, seed):
    classes = np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], [6, 12, 18]))
    split = held_out_folds(np.eye(3)[classes], None, folds, seed)
    for label in range(3):
        sizes = np.bincount(split[classes == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("classes", [[], [0], [0, 1, 2]])
def test_where_nothing_can_be_held_out_there_is_one_fold(classes):
    targets = np.eye(3)[np.array(classes, int)]
    np.testing.assert_array_equal(held_out_folds(targets, None, 5, 0), np.zeros(len(classes), int))
