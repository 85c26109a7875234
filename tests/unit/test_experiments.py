"""What single experiments compute beside training: text, overlap, ratios, the paper's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import fake_runs
import numpy as np
import pytest

from simulate import data, experiments
from simulate.analysis import beside
from simulate.analysis.costs import company
from simulate.analysis.material import Material
from simulate.analysis.selected import common
from simulate.analysis.speakers import by_speaker, paired
from simulate.analysis.summary import Summary, summarise
from simulate.cache import Cache
from simulate.command.request import parse
from simulate.experiments import table1, table9, text
from simulate.protocols import Fold
from simulate.runs.store import Store

SPEAKERS = [f"s{number}" for number in range(7)]


@pytest.fixture
def corpus(tmp_path: Path, write_wav: Callable[..., Path]) -> data.Corpus:
    return fake_runs.load(fake_runs.tiny_corpus(tmp_path, write_wav, SPEAKERS))


def summary_of(corpus: data.Corpus, folder: Path, *arguments: str) -> Summary:
    given = ("--corpus", "emodb", "--root", str(folder), "--preset", "paper", *arguments)
    request = parse(given)
    runs = fake_runs.planned(corpus, request, folder)
    experiment = experiments.get(request.experiment)
    rows = {run.run_id: fake_runs.row(run) for run in runs}
    return summarise(experiment, experiment.design(request.options), runs, rows)


@pytest.mark.parametrize("old", experiments.ALIASES)
def test_the_names_before_still_find_their_experiment(old: str) -> None:
    assert parse(["--experiment", old]).experiment == experiments.ALIASES[old]


def test_every_family_is_a_claim_at_all_its_shares(corpus: data.Corpus, tmp_path: Path) -> None:
    summary = summary_of(corpus, tmp_path, "--experiment", "table7", "--shares", "10,20,40")
    family = [c.comparison for c in summary.comparisons
              if (c.claim, c.metric) == ("TAPT pays", "ua") and c.share is not None]  # fmt: skip
    assert len(family) == 2 * 3
    smallest = min(family, key=lambda one: one.p_t or 1.0)
    assert smallest.p_t is not None
    assert smallest.p_holm == pytest.approx(min(1.0, 6 * smallest.p_t))


def test_the_papers_rows_meet_what_was_measured_by_id(corpus: data.Corpus, tmp_path: Path) -> None:
    summary = summary_of(corpus, tmp_path, "--experiment", "table7", "--shares", "10,20")
    rows = {row.published.id: row for row in beside.joined(summary, 7, "emodb")}
    found = rows["7/AFTER/merged/0.2/ua"]
    point = summary.point("AFTER", 0.2)
    assert point is not None
    assert found.difference == pytest.approx(point.metrics["ua"].mean - 0.7741)
    assert {"validation session tested", "other data", "backbone whisper-base"} <= {*found.badges}
    unmeasured = rows["7/AFTER/merged/0.6/ua"]
    assert unmeasured.measured is None
    assert "published only" in unmeasured.badges


def test_no_other_data_are_claimed_where_they_are_the_papers(
    corpus: data.Corpus, tmp_path: Path
) -> None:
    summary = summary_of(corpus, tmp_path, "--experiment", "table3", "--shares", "10,20")
    for data_, other in (("merged-2", False), ("emodb", True)):
        found = [row for row in beside.joined(summary, 3, data_) if row.measured]
        assert {"other data" in row.badges for row in found} == {other}


def test_systems_that_are_not_here_are_said_to_be_missing() -> None:
    design = experiments.get("table3").design(parse([]).options)
    there = {arm.name for arm in design.arms}
    for system in ("GLAM", "LSSED", "w2v2-L-robust"):
        told = any(text_.startswith(f"{system}:") for text_ in design.missing)
        assert told != (system in there)


def test_a_sentence_that_gives_the_emotion_away_is_found_out(corpus: data.Corpus) -> None:
    train, test = np.arange(0, 40), np.arange(40, 56)
    fold = Fold("f", train, np.zeros(0, int), test)
    number = [corpus.classes.index(label) for label in corpus.labels]
    leaking = replace(corpus, items=tuple(
        replace(item, text=f"{label} words") for item, label in
        zip(corpus.items, corpus.labels, strict=True)))  # fmt: skip
    assert text.predicted(leaking, fold).tolist() == [number[i] for i in test]
    silent = replace(corpus, items=tuple(replace(i, text="the same") for i in corpus.items))
    assert len(set(text.predicted(silent, fold).tolist())) == 1


def test_overlap_is_told_beside_what_chance_gives() -> None:
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(200)]
    shared = [
        common({*rng.choice(names, 40, False)}, {*rng.choice(names, 20, False)}, 200)
        for _ in range(400)
    ]
    found, by_chance = np.mean(shared, axis=0)
    assert by_chance == pytest.approx(0.2)
    assert found == pytest.approx(by_chance, abs=0.015)
    assert common({"a", "b"}, {"a"}, 10) == (1.0, 0.2)


def test_ratios_are_to_the_smallest_class() -> None:
    counts = Counter({"anger": 127 + 69, "neutral": 79, "sadness": 62, "happiness": 71})
    assert table1.ratio(counts) == "3.2 : 1.3 : 1.0 : 1.1"  # the paper prints 3.1 for EmoDB


def test_a_rater_may_choose_several_of_table_9s_emotions() -> None:
    assert table9.votes("(Sadness, Sadness, Sadness;Neutral)") == [[3], [3], [3, 2]]


@pytest.mark.parametrize(
    ("workers", "load", "words"),
    [("1", 1.1, ""), ("2", 1.1, "2 runs at a time"), ("1", 2.4, "load 2.4"),
     ("1", None, "load unknown")],
)  # fmt: skip
def test_a_run_that_had_company_says_so(workers: str, load: float | None, words: str) -> None:
    row = {"machine": {"runs at a time": workers, "threads per run": "1"}}
    assert company(row | ({} if load is None else {"load": load})) == words


def test_speakers_results_come_from_the_kept_predictions(
    corpus: data.Corpus, tmp_path: Path
) -> None:
    """AFTER is always right, random labels always say the first class."""
    summary = summary_of(corpus, tmp_path, "--experiment", "demo", "--shares", "10,20")
    store = Store(tmp_path / "rows")
    label = dict(zip((item.id for item in corpus.items), corpus.labels, strict=True))
    parts = np.array_split(np.array([item.id for item in corpus.items]), 5)
    for run, row in summary.done:
        ids = parts[run.fold].tolist()
        truth = [label[id_] for id_ in ids]
        right = np.array([[name == t for name in corpus.classes] for t in truth], float)
        probs = right if run.arm.name == "AFTER" else np.tile([1.0, 0.0], (len(ids), 1))
        said = [{"stage": n, "share": share, "ids": ids, "truth": truth, "probs": probs}
                for n, share in enumerate((0.1, 0.2))]  # fmt: skip
        store.add({**row, "predictions": said, "selections": []})
    cache = Cache(tmp_path / "cache")
    material = Material(summary, corpus, summary.runs[0].protocol, store, cache, tmp_path)
    found = paired(material)["AFTER", "TAPT + FT, random", 0.2]
    assert (found.speakers, found.mean) == (7, pytest.approx(0.5))
    (section,) = by_speaker(material)
    after = section.tables[0].header.index("AFTER")
    assert {row[after] for row in section.tables[0].rows[:7]} == {"1.000"}


def test_validation_is_set_apart_where_a_system_looks_at_it() -> None:
    """And AFTER, which doesn't, learns from the same recordings as those beside it."""
    assert parse(["--experiment", "table3"]).protocol.validation_share > 0
    assert parse(["--experiment", "figure2"]).protocol.validation_share == 0
    paper = parse(["--experiment", "figure2", "--preset", "paper"])
    assert paper.protocol.validation_share > 0
