"""The options of `simulate/run.py`, grouped and explained."""

from __future__ import annotations

import argparse
import os
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

DESCRIPTION = """\
Repeats the paper's experiments with hidden labels: an oracle answers what the learner asks,
and the model is tested on other speakers after every round.
"""
EXPERIMENTS_HELP = """\
experiments:
  demo        AFTER against random selection and, where TAPT is on, against AFTER without it
  ablation    with and without TAPT, by random and by the strategy, the same start
              (Table 7 with --preset paper)
  strategies  Figure 2: every strategy, from the preset's start and from a random one
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
  python simulate/run.py --corpus manifest --root mine.csv --backbone facebook/wav2vec2-base
      your own recordings: a CSV file with the columns path, label, speaker

A command that was interrupted goes on where it was when it is given again.
"""


Add = Callable[..., Any]
"""add_argument of one group."""


class UsageError(ValueError):
    """An option that can't be followed; the message is for the person who typed it."""


def parser() -> argparse.ArgumentParser:
    """All options, grouped as a person meets them."""
    result = _Parser(
        usage="python simulate/run.py [--corpus NAME --root PATH] [--experiment NAME] [options]",
        description=DESCRIPTION,
        epilog=f"{EXPERIMENTS_HELP}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _comparison(result.add_argument_group("what is compared").add_argument)
    _recordings(result.add_argument_group("recordings").add_argument)
    _repetitions(result.add_argument_group("repetitions").add_argument)
    _model(result.add_argument_group("the model").add_argument)
    _computing(result.add_argument_group("computing").add_argument)
    return result


def _comparison(add: Add) -> None:
    words = "see below (default: demo)"
    known = [*experiments.names(), *experiments.ALIASES]
    add("--experiment", default="demo", choices=known, help=words)
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
    add("--start-share", type=percentage, metavar="PERCENT", help=words)
    words = (
        "the start has at least so many recordings per class, up to half the budget; 0: the share "
        f"alone, as in the paper ({LearnerConfig.start_per_class})"
    )
    add("--start-per-class", type=_natural, metavar="N", help=words)
    words = (
        "labels asked for at a time within a round: a number, classes (one per class) or round "
        f"(all at once, as in the paper) ({LearnerConfig.step_size})"
    )
    add("--step-size", type=_step_size, metavar="N", help=words)
    words = (
        "of the labels asked for, drawn at random to judge the model by; 0: none, as in the paper "
        f"({100 * LearnerConfig.audit_share:g})"
    )
    add("--audit-share", type=_audit_share, metavar="PERCENT", help=words)
    add("--budget", type=percentage, metavar="PERCENT", help="labels in all (20)")
    words = "equal rounds from the start to the budget (5)"
    add("--rounds", type=_positive, metavar="N", help=words)
    words = "also train once per fold on all the labels, with and without TAPT"
    add("--full", action="store_true", help=words)


def _recordings(add: Add) -> None:
    words = "default: demo, generated here; with --root: manifest"
    words += f". {', '.join(data.names())}, or several with + between"
    add("--corpus", type=_corpus, metavar="NAME", help=words)
    words = "the corpus's folder, or the manifest; NAME=PATH,NAME=PATH for several corpora"
    add("--root", type=data.root_of, metavar="PATH", help=words)
    add("--classes", metavar="NAMES", help="only these emotions, in this order")
    words = "go on when files of a known release are missing"
    add("--allow-partial", action="store_true", help=words)
    words = f"how speakers are kept apart (default: {protocols.DEFAULT})"
    add("--protocol", default=protocols.DEFAULT, choices=protocols.names(), help=words)
    words = "of a merged corpus, those that are tested; the others only train (default: as merged)"
    add("--tested", metavar="NAMES", help=words)
    words = "EmoBox's fold_1, fold_2, ... for the protocols emobox and emobox-speakers-shared"
    add("--fold-files", type=_path, metavar="FOLDER", help=words)


def _repetitions(add: Add) -> None:
    words = "parts that are tested in turn (default: 5)"
    add("--folds", type=_positive, metavar="N", help=words)
    words = "runs of every fold, each with a seed of its own (default: 1)"
    add("--seeds", type=_positive, default=1, metavar="N", help=words)
    add("--first-seed", type=int, default=0, metavar="N", help="default: 0")


def _model(add: Add) -> None:
    words = (
        f"{LearnerConfig.backbone} (embedded, the default), a folder, or a name on the hub such "
        "as facebook/wav2vec2-base or facebook/hubert-base-ls960"
    )
    add("--backbone", metavar="NAME", default=LearnerConfig.backbone, help=words)
    words = "hidden states that are pooled: numbers with commas between, last, all (its default)"
    add("--states", type=_states, metavar="NUMBERS", help=words)
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
    add("--epochs", type=_positive, metavar="N", help=words)
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
    add("--tapt-epochs", type=_positive, metavar="N", help=words)


def _computing(add: Add) -> None:
    words = "of the report (default: STORE/CORPUS-EXPERIMENT)"
    add("--output", type=_path, metavar="FOLDER", help=words)
    words = "of all experiments' runs and of what they share (default: runs)"
    add("--store", type=_path, default=Path("runs"), metavar="FOLDER", help=words)
    words = "copy another store's runs (its folder rows) into this one, and do nothing else"
    add("--merge", type=_path, metavar="FOLDER", help=words)
    words = "runs count that differ in nothing but the state of the code; the report says so"
    add("--other-code", action="store_true", help=words)
    words = "runs at the same time; results don't depend on it (default here: %(default)s)"
    add("--workers", type=_positive, default=_default_workers(), metavar="N", help=words)
    words = "threads of each run; the last digits of results may depend on it (default: 1)"
    add("--threads", type=_positive, default=1, metavar="N", help=words)
    words = "processes here, or several machines (needs pip install -r requirements-ray.txt)"
    add("--engine", choices=("local", "ray"), default="local", help=words)
    words = "cards with commas between, for the workers in turn, as CUDA_VISIBLE_DEVICES names them"
    add("--cards", metavar="NAMES", help=words)
    words = "minutes a run may take before it is stopped (default: none)"
    add("--time-limit", type=_positive, metavar="MINUTES", help=words)
    words = "how often a run goes on whose process died or took too long (default: 1)"
    add("--retries", type=_natural, default=1, metavar="N", help=words)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    add("--keep-models", action="store_true", help="keep the models of finished runs")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of thirty options before it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nAll options: python simulate/run.py --help")


def percentage(text: str) -> float:
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage") from None
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text}: a percentage above 0 and up to 100")
    return round(percent / 100, 8)


def _audit_share(text: str) -> float:
    share = 0.0 if text.strip().removesuffix("%") == "0" else percentage(text)
    if share > 0.5:
        raise argparse.ArgumentTypeError(f"{text}: a percentage from 0 to 50")
    return share


def _natural(text: str, least: int = 0) -> int:
    if not text.strip().isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {least}")
    return int(text)


def _positive(text: str) -> int:
    return _natural(text, 1)


def _step_size(text: str) -> int | str:
    return text if text in ("classes", "round") else _positive(text)


def _states(text: str) -> tuple[int, ...] | str:
    if text in ("last", "all"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers such as 2,3, or last, or all"
        ) from None


def _corpus(text: str) -> str:
    try:
        data.members(text)
    except data.CorpusError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _default_workers() -> int:
    """A worker per core, up to four: each holds a model."""
    return min(4, len(os.sched_getaffinity(0)))
