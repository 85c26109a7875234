"""What was asked for: on a map of the training part, and in common between runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from sklearn.manifold import TSNE

from after_model.audio import Utterance
from simulate.analysis.material import Material, Section, Table
from simulate.analysis.plots import STYLE
from simulate.analysis.summary import percent
from simulate.protocols import folds_of
from simulate.runs.plan import Run
from simulate.systems import Context
from simulate.systems._frozen import Frozen
from simulate.systems.after import After

COMPONENTS = 50  # t-SNE after PCA, as its authors advise (van der Maaten and Hinton 2008)


def picture(material: Material) -> Sequence[Section]:
    """Figure 4 of the first fold and seed: a map an arm, asked-for recordings marked."""
    summary = material.summary
    share = summary.headline_share
    done = [run for run, _ in summary.done if isinstance(run.arm.system, After)]
    if share is None or not done:
        return []
    first = min(done, key=lambda run: (run.fold, run.seed))
    runs = [run for run in done if (run.fold, run.seed) == (first.fold, first.seed)]
    fold = folds_of(material.protocol, material.corpus)[first.fold]
    items = material.corpus.pick(fold.train)
    labels = [material.corpus.labels[i] for i in fold.train]
    places = flat(_embeddings(material, first, items), first.seed)
    path = material.folder / "pictures" / "map.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    asked = {run.arm.name: set(material.asked_until(run, share)) for run in runs}
    marked = {name: np.array([item.id in ids for item in items]) for name, ids in asked.items()}
    _draw(places, labels, marked, path)
    counts = ", ".join(f"{name} {int(rows.sum())}" for name, rows in marked.items())
    caption = (
        f"Training part of fold {first.fold + 1}, seed {first.seed}: {len(items)} recordings by "
        f"their frozen embeddings (t-SNE; distances between groups mean nothing). Ringed: asked "
        f"for up to {percent(share)} ({counts})."
    )
    return [Section("What is asked for", pictures=((caption, path),))]


def flat(points: np.ndarray, seed: int) -> np.ndarray:
    """Places [N, 2] of embeddings [N, R], each column standardised first."""
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    left, sizes, _ = np.linalg.svd(scaled, full_matrices=False)
    scaled = (left * sizes)[:, :COMPONENTS]
    perplexity = min(30.0, max(2.0, (len(points) - 1) / 3))
    map_ = TSNE(2, perplexity=perplexity, random_state=seed, init="pca")
    return np.asarray(map_.fit_transform(scaled))


def _embeddings(material: Material, run: Run, items: Sequence[Utterance]) -> np.ndarray:
    """Of the backbone as it is: what TAPT made of it isn't kept."""
    assert isinstance(run.arm.system, After)
    learner = run.arm.system.learner
    context = Context((1.0,), run.seed, Path(), Path(), material.cache, material.device)
    frozen = Frozen(learner.backbone, learner.head, learner.states, context)
    return np.asarray(frozen.of(items).take(np.arange(len(items))))


def _draw(places: np.ndarray, labels: list[str], marked: dict[str, np.ndarray], path: Path) -> None:
    colours = plt.get_cmap("tab10")
    names = sorted(set(labels))
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        figure, grid = plt.subplots(1, len(marked), figsize=(5 * len(marked), 5.2), squeeze=False)
        for axes, (title, chosen) in zip(grid[0], marked.items(), strict=True):
            for number, name in enumerate(names):
                rows = np.array([label == name for label in labels])
                axes.scatter(*places[rows].T, s=14, color=colours(number % 10), alpha=0.55,
                             linewidths=0, label=name)  # fmt: skip
            axes.scatter(*places[chosen].T, s=46, facecolors="none", edgecolors="#B00020",
                         linewidths=1.3)  # fmt: skip
            axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
            axes.set_xticks([])
            axes.set_yticks([])
        handles, words = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, words, loc="lower center", ncols=min(4, len(names)), fontsize=9)
        figure.tight_layout(rect=(0, 0.11, 1, 1))
        figure.savefig(path)
        plt.close(figure)


def overlap(material: Material) -> Sequence[Section]:
    """Shared recordings of each pair of arms, by share, on the same fold and seed."""
    summary = material.summary
    arms = [arm.name for arm in summary.design.arms if not arm.full]
    by = {(run.arm.name, run.fold, run.seed): run for run, _ in summary.done}
    spots = sorted({(run.fold, run.seed) for run, _ in summary.done})
    rows = []
    for first, second in itertools.combinations(arms, 2):
        cells = []
        for share in summary.shares:
            found = []
            for spot in spots:
                pair = [by.get((name, *spot)) for name in (first, second)]
                if pair[0] is None or pair[1] is None:
                    continue
                one, two = (set(material.asked_until(run, share)) for run in pair if run)
                if one and two:
                    found.append(common(one, two, pair[0].content.sizes[0]))
            if found:
                share_, by_chance = np.mean(found, axis=0)
                cells.append(f"{share_:.2f} ({by_chance:.2f})")
            else:
                cells.append("")
        rows.append((f"{first}; {second}", *cells))
    note = (
        "Of what the two asked for, the part that both did (of the smaller set), mean over folds "
        "and seeds; in brackets what two random sets of these sizes share. The start is the same "
        "for both and part of it."
    )
    header = ("pair", *map(percent, summary.shares))
    return [Section("Asked for by both", note, (Table(header, tuple(rows)),))] if rows else []


def common(first: set[str], second: set[str], pool: int) -> tuple[float, float]:
    """(part of the smaller set that is in both, the same expected of random sets in the pool)."""
    least = min(len(first), len(second))
    return len(first & second) / least, max(len(first), len(second)) / pool
