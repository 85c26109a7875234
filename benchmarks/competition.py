"""`python -m benchmarks competition`: does an adapter pass the probe, and does the gate know it?

Folds of speakers, random labels, the default preset's probe. At each share of labels: the probe,
the adapter that fine_tuning="competes" trains, and what the comparison on these labels keeps, on
speakers that none has heard. The encoder is run once a corpus; results are kept row by row, so that
the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table
from scipy.special import log_softmax, softmax

from after_model import backbone as backbones
from after_model import metrics
from after_model.active_learning import competition
from after_model.active_learning.challengers import AdapterChallenger
from after_model.backbone import DEFAULT, Backbone
from after_model.classifier import DEFAULT_HEAD, EmotionClassifier
from after_model.classifier import probe as probes
from after_model.classifier.adapting import AdapterConfig, Frames, judge, read_frames
from after_model.classifier.of_probe import of_probe
from after_model.classifier.probe import Probe, ProbeConfig
from after_model.classifier.standardising import Standardiser
from after_model.features import FeatureStore
from benchmarks import report
from simulate import protocols
from simulate.data import Corpus, CorpusError, some
from simulate.efficiency.work import corpus_of
from simulate.identity import digest
from simulate.runs.results import Results

SHARES = (5, 10, 20, 40, 100)
WAYS = ("probe", "adapter", "kept")
MOST = 2 * 2**30  # bytes of a whole corpus's frames
CAPTION = """\
UA in per cent and cross-entropy, means over folds and seeds; ECE (15 bins) of all test recordings
together; adapters at their probe's temperature. kept: how often the comparison kept the adapter.
Seconds of one core: the comparison and, where it keeps the adapter, its training on all labels.\
"""


@dataclass(frozen=True)
class Embedded:
    """A corpus as its frozen encoder gives it, with what the labels are."""

    corpus: Corpus
    backbone: Backbone
    frames: Frames
    targets: np.ndarray  # [N, C]

    @property
    def points(self) -> np.ndarray:
        """Embeddings [N, S * R]."""
        return self.frames.pooled.reshape(len(self.frames.pooled), -1)


def embedded(corpus: Corpus, backbone: Backbone, folder: Path) -> Embedded:
    """Frames, read from the folder where it has them. CorpusError for unreadable recordings."""
    store = FeatureStore(folder / "features", backbone)
    reader = EmotionClassifier(backbone, len(corpus.classes))
    mark = digest([backbone.encoder_hash, *store.keys(corpus.utterances)])
    path = folder / f"{corpus.name}-{mark}.npz"
    if not path.exists():
        failures = store.fill(corpus.utterances)
        if failures:
            raise CorpusError(f"{len(failures)} recordings can't be read: {some(failures, 3)}")
        made = read_frames(reader, store, corpus.utterances, max_bytes=MOST)
        np.savez(path, values=made.values, starts=made.starts, pooled=made.pooled)
    frames = Frames(**np.load(path))
    index = {label: number for number, label in enumerate(corpus.classes)}
    kinds = [index[label] for label in corpus.labels]
    return Embedded(corpus, backbone, frames, np.eye(len(corpus.classes), dtype=np.float32)[kinds])


def measure(found: Embedded, fold: protocols.Fold, share: float, seed: int) -> dict[str, Any]:
    """One fold with one random choice of labels: test logits of each way, the comparison, times."""
    pool = np.sort(np.concatenate([fold.train, fold.validation]))
    order = np.random.default_rng([seed, int(fold.test.sum())]).permutation(pool)
    chosen = np.sort(order[: round(share * len(pool))])
    points, states = found.points, found.frames.pooled.shape[1]
    statistics, config = Standardiser.of(points[pool]), ProbeConfig(states=states, seed=seed)
    targets = found.targets[chosen]
    speakers = [found.corpus.utterances[i].speaker or "" for i in chosen]

    def fit_probe(rows: np.ndarray) -> tuple[Probe, EmotionClassifier]:
        probe = probes.fit(
            points[chosen[rows]],
            targets[rows],
            statistics=statistics,
            speakers=[speakers[i] for i in rows],
            config=config,
        )
        return probe, of_probe(probe, found.backbone, DEFAULT_HEAD)

    frames = found.frames.take(chosen)
    challenger = AdapterChallenger(
        fit_probe, lambda: frames, targets, speakers, AdapterConfig(), config, seed, "cpu"
    )
    started = time.process_time()
    compared = competition.compare(challenger, targets, speakers, seed=seed)
    between = time.process_time()
    classifier, _ = challenger.trained()
    trained = time.process_time()
    plain = fit_probe(np.arange(len(chosen)))[1]
    row: dict[str, Any] = {
        "labels": len(chosen),
        "classes": found.targets[fold.test].argmax(axis=1).tolist(),
        "probe": judge(plain, found.frames, fold.test).round(4).tolist(),
        "adapter": judge(classifier, found.frames, fold.test).round(4).tolist(),
        "compare_seconds": between - started,
        "train_seconds": trained - between,
        "helps": compared is not None and compared.helps,
    }
    if compared is not None:
        row["gain"], row["error"] = compared.gain, compared.error
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By way: mean UA and loss over folds and seeds, calibration error of all tests together."""
    found = {}
    for way in WAYS:
        parts = []
        for row in rows:
            name = way if way != "kept" else "adapter" if row["helps"] else "probe"
            parts.append((np.array(row["classes"]), np.array(row[name])))
        every = [metrics.evaluate(y, softmax(z, axis=1)) for y, z in parts]
        losses = [-log_softmax(z, axis=1)[np.arange(len(y)), y].mean() for y, z in parts]
        classes, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
        found[way] = {
            "ua": float(np.mean([one["ua"] for one in every])),
            "loss": float(np.mean(losses)),
            "ece": metrics.evaluate(classes, softmax(logits, axis=1))["ece"],
        }
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when everything was measured."""
    options = _parser().parse_args(arguments)
    roots = {name: getattr(options, name) for name in ("emodb", "ravdess")}
    if not any(roots.values()):
        print("nothing to do: name a corpus, for example --emodb DIR", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    console = report.new_console()
    results = Results(options.output / "results.jsonl")
    for name, root in roots.items():
        if root is None:
            continue
        try:
            corpus = corpus_of(name, root)
            rows = list(_rows(corpus, options, results))
        except (CorpusError, protocols.ProtocolError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        console.print(f"\n{name}, {len(corpus.classes)} classes: UA / loss / ECE")
        console.print(_table(rows, options.shares))
    return 0


def _rows(
    corpus: Corpus, options: argparse.Namespace, results: Results
) -> Iterator[dict[str, Any]]:
    """Every row that is wanted, computed where it is missing."""
    known, found = results.rows(), None
    for seed in range(options.seeds):  # a seed divides the speakers anew
        folds = protocols.split(protocols.DEFAULT, corpus, options.folds, seed=seed)
        for fold, share in itertools.product(folds, options.shares):
            place = f"{corpus.name} {len(corpus)} {options.backbone} {fold.name}/{options.folds}"
            identity = f"{place} seed {seed}, {share:g} %"
            if identity not in known:
                found = found or embedded(corpus, backbones.load(options.backbone), options.output)
                row = measure(found, fold, share / 100, seed)
                results.append({"run_id": identity, "share": share, **row})
                known[identity] = {"share": share, **row}
                print(identity, file=sys.stderr, flush=True)
            yield known[identity]


def _table(rows: Sequence[dict[str, Any]], shares: Sequence[float]) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, caption=CAPTION, caption_justify="left")
    for title in ("labels", *WAYS, "kept", "compare (s)", "train (s)"):
        table.add_column(title, justify="right", no_wrap=True)
    for share in shares:
        own = [row for row in rows if row["share"] == share]
        found = summary(own)
        cells = [f"{100 * found[w]['ua']:.1f} / {found[w]['loss']:.3f} / {found[w]['ece']:.3f}"
                 for w in WAYS]  # fmt: skip
        table.add_row(
            f"{share:g} % ({np.mean([row['labels'] for row in own]):.0f})",
            *cells,
            f"{sum(row['helps'] for row in own)} of {len(own)}",
            f"{np.mean([row['compare_seconds'] for row in own]):.1f}",
            f"{np.mean([row['train_seconds'] for row in own]):.1f}",
        )
    return table


def _shares(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks competition",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--emodb", type=Path, metavar="DIR", help="EmoDB's folder, all 7 classes")
    add("--ravdess", type=Path, metavar="DIR", help="RAVDESS's folder, all 8 classes")
    words = "labelled per cent of the training speakers' recordings (default: 5,10,20,40,100)"
    add("--shares", type=_shares, default=SHARES, metavar="LIST", help=words)
    add("--folds", type=int, default=5, metavar="N", help="of speakers (default: 5)")
    words = "divisions of speakers, each with its own labels (default: 1)"
    add("--seeds", type=int, default=1, metavar="N", help=words)
    add("--backbone", default=DEFAULT, metavar="NAME", help=f"default: {DEFAULT}")
    add("--threads", type=int, default=1, metavar="N", help="default: 1")
    words = "features, frames and results (default: runs/competition)"
    add("--output", type=Path, default=Path("runs/competition"), metavar="DIR", help=words)
    return parser
