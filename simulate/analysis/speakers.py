"""Results by who speaks: comparisons by a bootstrap over speakers, and each speaker's own."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from simulate.analysis import bootstrap
from simulate.analysis.bootstrap import Bootstrapped
from simulate.analysis.material import Material, Section, Table

SEED = 0
Confusions = dict[tuple[str, float], list[np.ndarray]]
"""By arm and share: of each seed, confusion matrices [S, C, C] over all folds."""


def paired(material: Material) -> dict[tuple[str, str, float | None], Bootstrapped]:
    """UA's difference of each comparison by (arm, baseline, share), over the test speakers.

    Only folds and seeds that all arms have: then every arm is tested on the same recordings.
    """
    names = list(material.corpus.speakers)
    if len(names) < bootstrap.LEAST_SPEAKERS or not material.summary.comparisons:
        return {}
    known = confusions(material, names)
    found: dict[tuple[str, str, float | None], Bootstrapped] = {}
    for one in material.summary.comparisons:
        if one.metric != "ua" or one.share is None:
            continue
        arm, baseline = one.comparison.arm, one.comparison.baseline
        first, second = known.get((arm, one.share)), known.get((baseline, one.share))
        if first and second and len(first) == len(second):
            rng = np.random.default_rng(SEED)
            result = bootstrap.difference(first, second, rng)
            if result is not None:
                found[arm, baseline, one.share] = result
    return found


def confusions(material: Material, names: list[str], of: str = "speaker") -> Confusions:
    """Confusion matrices by speaker, or by another attribute of the items: `corpus`.

    A (fold, seed) that some arm has not finished is left out.
    """
    corpus = material.corpus
    who = {item.id: str(getattr(item, of)) for item in corpus.items}
    number = {label: i for i, label in enumerate(corpus.classes)}
    arms: dict[tuple[int, int], set[str]] = defaultdict(set)
    for run, _ in material.summary.done:
        arms[run.fold, run.seed].add(run.arm.name)
    everybody = {arm.name for arm in material.summary.design.arms}
    whole = {spot for spot, there in arms.items() if there >= everybody}
    parts: dict[tuple[str, float], dict[int, list[np.ndarray]]] = defaultdict(
        lambda: defaultdict(list)
    )
    by_run = {run.run_id: run for run, _ in material.summary.done}
    for (run_id, share), said in sorted(material.answers.items()):
        run = by_run[run_id]
        if (run.fold, run.seed) not in whole:
            continue
        truth = np.array([number[label] for label in said.truth])
        predicted = said.probs.argmax(axis=1)
        speakers = [who[id_] for id_ in said.ids]
        counted = bootstrap.counts(speakers, truth, predicted, names, len(number))
        parts[run.arm.name, share][run.seed].append(counted)
    return {spot: bootstrap.by_seed(of_seed) for spot, of_seed in parts.items()}


def by_speaker(material: Material) -> list[Section]:
    """Each test speaker's accuracy at the headline share: who is served worse."""
    return _by(material, list(material.corpus.speakers), "speaker", "Each speaker's own result")


def by_corpus(material: Material) -> list[Section]:
    """The same of each corpus of a merge."""
    names = sorted({item.corpus for item in material.corpus.items})
    return _by(material, names, "corpus", "Each corpus's own result") if len(names) > 1 else []


def _by(material: Material, names: list[str], of: str, title: str) -> list[Section]:
    share = material.summary.headline_share
    known = confusions(material, names, of)
    arms = [a for a in material.summary.design.arms if a.full or (a.name, share or 1.0) in known]
    spots = [(a.name, 1.0 if a.full or share is None else share) for a in arms]
    spots = [spot for spot in spots if spot in known]
    if not spots:
        return []
    rows = []
    for i, name in enumerate(names):
        matrices = [np.mean([one[i] for one in known[spot]], axis=0) for spot in spots]
        tested = int(matrices[0].sum())
        if tested:
            values = [f"{float(bootstrap.wa(one)):.3f}" for one in matrices]
            rows.append((name, str(tested), *values))
    header = (of, "tested", *(arm for arm, _ in spots))
    note = (
        "Share of right answers, of all test recordings of the folds together"
        + ("" if share is None else f", at {share * 100:.3g} % of the labels or all of them")
        + ". A mean over speakers hides those that it fails."
    )
    columns = np.array([[float(cell) for cell in row[2:]] for row in rows])
    if len(rows) > 1:
        worst = (f"{value:.3f}" for value in columns.min(axis=0))
        spread = (f"{value:.3f}" for value in columns.std(axis=0, ddof=1))
        rows += [("the worst", "", *worst), ("standard deviation", "", *spread)]
    return [Section(title, note, (Table(header, tuple(rows)),))]
