"""The options of `simulate/run.py`, grouped and explained."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from after_model import acquisition, initialization
from after_model.active_learning import (
    FINE_TUNING,
    PRESETS,
    SPEAKERS,
    WARM_STARTS,
    LearnerConfig,
)
from after_model.classifier import HEADS
from after_model.classifier.finetuning import TrainingConfig
from after_model.tapt.config import OBJECTIVES, TaptConfig
from simulate import data, experiments, protocols
from simulate.command import roots, values
from simulate.command.values import UsageError
from simulate.data import policies

DESCRIPTION = """\
Repeats the paper's experiments with hidden labels: an oracle answers what the learner asks,
and the model is tested on other speakers after every round.
"""
EXAMPLES = """\
examples:
  python simulate/run.py
      a generated demonstration corpus and the embedded backbone, in a few minutes: fewer folds,
      shares and epochs than elsewhere, unless you say how many
  python simulate/run.py --corpus emodb --root ~/EmoDB
      the same comparison on EmoDB
  python simulate/run.py --corpus ravdess --root ~/RAVDESS --experiment ablation --seeds 3 --full
      Table 7 with three seeds a fold, and the runs on all labels beside it
  python simulate/run.py --corpus emodb --root ~/EmoDB --experiment strategies \\
      --strategies entropy,margin,random --shares 2,5,10,20
      Figure 2 for some strategies, at these labelled shares; the first is the start
  python simulate/run.py --check iemocap --root ~/IEMOCAP
      is everything there, and readable?
  python simulate/run.py --paper --plan
      what the whole paper takes on the corpora of after.toml; without --plan it is run
  python simulate/run.py --corpus manifest --root mine.csv --backbone facebook/wav2vec2-base
      your own recordings: a CSV file with the columns path, label, speaker

A command that was interrupted goes on where it was when it is given again.
"""


Add = Callable[..., Any]
"""add_argument of one group."""


def parser() -> argparse.ArgumentParser:
    """All options, grouped as a person meets them."""
    result = _Parser(
        usage="python simulate/run.py [--corpus NAME --root PATH] [--experiment NAME] [options]",
        description=DESCRIPTION,
        epilog=f"{_experiments_help()}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _instead(result.add_argument_group("instead of one experiment").add_argument)
    _comparison(result.add_argument_group("what is compared").add_argument)
    _recordings(result.add_argument_group("recordings").add_argument)
    _repetitions(result.add_argument_group("repetitions").add_argument)
    _model(result.add_argument_group("the model").add_argument)
    _computing(result.add_argument_group("computing").add_argument)
    return result


def _experiments_help() -> str:
    """Of those with a file, in the words of --list."""
    names = experiments.names()
    column = max(map(len, names)) + 4
    lines = [f"{f'  {name}':{column}}{experiments.get(name).title}" for name in names]
    return "\n".join(["experiments:", *lines, ""])


def _instead(add: Add) -> None:
    words = "experiments, corpora, label policies, protocols, presets, strategies, starts, "
    words += "backbones and systems, with a line each"
    add("--list", action="store_true", help=words)
    words = (
        "is it there as released? layout, counts, missing and extra files, recordings that can't "
        "be read, and what a run would use of it; exit code 1 if not"
    )
    add("--check", type=values.corpus, metavar="CORPUS", help=words)
    words = (
        "every table and figure on every corpus that has a root (--roots), as in the paper and "
        "strictly, with a report each and an index; --experiment, --corpus, --preset or "
        "--protocol narrow it (reports: STORE/paper)"
    )
    add("--paper", action="store_true", help=words)
    words = (
        "runs that would be made, those that are finished, hours and disk; computes nothing but a "
        "short timing where no earlier run tells"
    )
    add("--plan", action="store_true", help=words)


def _comparison(add: Add) -> None:
    words = "see below (default: demo)"
    add("--experiment", type=values.experiment, default="demo", metavar="NAME", help=words)
    words = (
        "every setting below that is not given: default is what was measured to need the fewest "
        "labels, paper what the paper says, with its validation set (default: default)"
    )
    add("--preset", default="default", choices=PRESETS, help=words)
    words = f"with commas between, or all: {', '.join(acquisition.names())}"
    add("--strategies", metavar="NAMES", help=words)
    words = f"how the first samples are chosen: {', '.join(initialization.names())}"
    add("--starts", metavar="NAMES", help=words)
    words = "labelled shares of the training data to train and test at, the start first: 1,5,10,20"
    add("--shares", metavar="PERCENTS", help=words)
    words = "the start, as in Algorithm 1 (1)"
    add("--start-share", type=values.percentage, metavar="PERCENT", help=words)
    words = (
        "the start has at least so many recordings per class, up to half the budget; 0: the share "
        f"alone, as in the paper ({LearnerConfig.start_per_class})"
    )
    add("--start-per-class", type=values.natural, metavar="N", help=words)
    words = (
        "labels asked for at a time within a round: a number, classes (one per class) or round "
        f"(all at once, as in the paper) ({LearnerConfig.step_size})"
    )
    add("--step-size", type=values.step_size, metavar="N", help=words)
    words = (
        "of the labels asked for, drawn at random to judge the model by; 0: none, as in the paper "
        f"({100 * LearnerConfig.audit_share:g})"
    )
    add("--audit-share", type=values.audit_share, metavar="PERCENT", help=words)
    add("--budget", type=values.percentage, metavar="PERCENT", help="labels in all (20)")
    words = "equal rounds from the start to the budget (5)"
    add("--rounds", type=values.positive, metavar="N", help=words)
    words = "also train once per fold on all the labels, with and without TAPT"
    add("--full", action="store_true", help=words)


def _recordings(add: Add) -> None:
    words = "default: demo, generated here; with --root: manifest"
    words += f". {', '.join(data.names())}, or several with + between"
    add("--corpus", type=values.corpus, metavar="NAME", help=words)
    words = "the corpus's folder, or the manifest; NAME=PATH,NAME=PATH for several corpora"
    add("--root", type=data.root_of, metavar="PATH", help=words)
    words = 'a TOML file with lines like emodb = "~/EmoDB" below [roots], for when --root isn\'t '
    words += f"given (default: ${roots.VARIABLE}, or {roots.FILE} in this folder)"
    add("--roots", type=values.path, metavar="FILE", help=words)
    words = f"what counts as the label (default: as released): {', '.join(policies.names())}"
    add("--labels", type=values.policy, metavar="POLICY", help=words)
    add("--classes", metavar="NAMES", help="only these emotions, in this order")
    words = (
        "of a corpus's loader, such as modality=face (or cremad.modality=face, where that corpus "
        "is among those read); as often as needed"
    )
    add("--option", type=values.pair, action="append", default=[], metavar="KEY=VALUE", help=words)
    words = "go on when files of a known release are missing"
    add("--allow-partial", action="store_true", help=words)
    words = f"how speakers are kept apart (default: {protocols.DEFAULT})"
    add("--protocol", default=protocols.DEFAULT, choices=protocols.names(), help=words)
    words = "of a merged corpus, those that are tested; the others only train (default: as merged)"
    add("--tested", metavar="NAMES", help=words)
    words = "EmoBox's fold_1, fold_2, ... for the protocols emobox and emobox-speakers-shared"
    add("--fold-files", type=values.path, metavar="FOLDER", help=words)


def _repetitions(add: Add) -> None:
    words = "parts that are tested in turn (default: 5)"
    add("--folds", type=values.positive, metavar="N", help=words)
    words = "runs of every fold, each with a seed of its own (default: 1)"
    add("--seeds", type=values.positive, default=1, metavar="N", help=words)
    add("--first-seed", type=int, default=0, metavar="N", help="default: 0")


def _model(add: Add) -> None:
    words = (
        f"{LearnerConfig.backbone} (embedded, the default), a folder, or a name on the hub such "
        "as facebook/wav2vec2-base or facebook/hubert-base-ls960"
    )
    add("--backbone", metavar="NAME", default=LearnerConfig.backbone, help=words)
    words = "hidden states that are pooled: numbers with commas between, last, all (its default)"
    add("--states", type=values.states, metavar="NUMBERS", help=words)
    words = (
        "of the encoder in every round: never (a probe on frozen embeddings), competes (kept where "
        f"it is better than the probe), always (the paper) ({LearnerConfig.fine_tuning})"
    )
    add("--fine-tuning", choices=FINE_TUNING, help=words)
    words = (
        "take each speaker's own mean off the embeddings where that helps: transductive, the test "
        "speakers' unlabelled recordings count (default: off)"
    )
    add("--speakers", choices=SPEAKERS, default="off", help=words)
    words = (
        "what is pooled over time: mean and deviation (statistics), the mean (linear, the "
        f"paper's), or as the authors' code does (published) ({LearnerConfig.head})"
    )
    add("--head", choices=tuple(HEADS), help=words)
    words = f"of fine-tuning per round, at most (by the preset; paper: {TrainingConfig.epochs})"
    add("--epochs", type=values.positive, metavar="N", help=words)
    words = (
        "what a round trains on from: the previous round's model (Algorithm 1) or the adapted "
        f"backbone (the authors' code) ({LearnerConfig.warm_start})"
    )
    add("--warm-start", choices=WARM_STARTS, help=words)
    words = "task-adaptive pre-training on the training recordings, without labels (by the preset)"
    add("--tapt", choices=("on", "off"), help=words)
    words = (
        "eq. 1-3 (paper), wav2vec 2.0's own, or HuBERT's masked prediction "
        "(default: auto, by the backbone)"
    )
    add("--tapt-objective", choices=("auto", *OBJECTIVES), default="auto", help=words)
    words = f"passes over the recordings ({TaptConfig.epochs})"
    add("--tapt-epochs", type=values.positive, metavar="N", help=words)


def _computing(add: Add) -> None:
    words = "of the report (default: STORE/CORPUS-EXPERIMENT)"
    add("--output", type=values.path, metavar="FOLDER", help=words)
    words = "of all experiments' runs and of what they share (default: runs)"
    add("--store", type=values.path, default=Path("runs"), metavar="FOLDER", help=words)
    words = "copy another store's runs (its folder rows) into this one, and do nothing else"
    add("--merge", type=values.path, metavar="FOLDER", help=words)
    words = "runs count that differ in nothing but the state of the code; the report says so"
    add("--other-code", action="store_true", help=words)
    words = "runs at the same time; results don't depend on it (default here: %(default)s)"
    add(
        "--workers", type=values.positive, default=values.default_workers(), metavar="N", help=words
    )
    words = "threads of each run; the last digits of results may depend on it (default: 1)"
    add("--threads", type=values.positive, default=1, metavar="N", help=words)
    words = "processes here, or several machines (needs pip install -r requirements-ray.txt)"
    add("--engine", choices=("local", "ray"), default="local", help=words)
    words = "cards with commas between, for the workers in turn, as CUDA_VISIBLE_DEVICES names them"
    add("--cards", metavar="NAMES", help=words)
    words = "minutes a run may take before it is stopped (default: none)"
    add("--time-limit", type=values.positive, metavar="MINUTES", help=words)
    words = "how often a run goes on whose process died or took too long (default: 1)"
    add("--retries", type=values.natural, default=1, metavar="N", help=words)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--keep-models", action="store_true", help="keep the models of finished runs")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of thirty options before it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nAll options: python simulate/run.py --help")
