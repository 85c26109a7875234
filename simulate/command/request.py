"""What a command line asks for: `parse` checks every option as far as it can without the corpus."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from after_model import acquisition, initialization
from after_model.active_learning import LearnerConfig
from after_model.tapt.config import TaptConfig
from simulate import data, experiments
from simulate.command import roots
from simulate.command.cli import parser
from simulate.command.values import UsageError, percentage
from simulate.experiments import Experiment, Options
from simulate.protocols import Protocol
from simulate.runs.execution import Resources

DEFAULT_START_SHARE, DEFAULT_BUDGET, DEFAULT_ROUNDS = 0.01, 0.20, 5
FOLDS = 5
VALIDATION_SHARE = 0.1
DEMONSTRATION = {"folds": 3, "epochs": 4, "tapt_epochs": 2, "shares": "5,10,20"}
"""What the generated corpus is used with where nothing else is asked for: a few minutes' work."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    labels: a label policy's name; loading: options of the corpus's loader. folder: of the report;
    store: of all experiments' runs and cache. merge: another store's rows to take over, and nothing
    else. other_code: rows of another state of the code count.
    """

    corpus: str
    root: data.Root
    classes: tuple[str, ...] | None
    labels: str | None
    loading: Mapping[str, Any]
    experiment: str
    options: Options
    protocol: Protocol
    seeds: tuple[int, ...]
    device: str
    resources: Resources
    engine: str
    folder: Path
    store: Path
    merge: Path | None
    other_code: bool
    keep_models: bool


def parse(argv: Sequence[str] | None = None) -> Request:
    """The request that a command line makes. Raises `UsageError`; --help ends the program."""
    return requested(parser().parse_args(argv))


def requested(chosen: argparse.Namespace) -> Request:
    """What the options ask for. Raises `UsageError`."""
    if chosen.check is not None:
        chosen.corpus = chosen.check
    if chosen.corpus is None:
        chosen.corpus = "demo" if chosen.root is None else "manifest"
    if chosen.corpus == "demo" and chosen.experiment == "demo":
        _keep_it_short(chosen)
    if chosen.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray: pip install -r requirements-ray.txt")
    experiment = experiments.get(chosen.experiment)
    options = _options(chosen)
    return Request(
        corpus=chosen.corpus,
        root=_root(chosen),
        classes=_names(chosen.classes),
        labels=chosen.labels,
        loading=_loading(chosen),
        experiment=experiment.name,
        options=options,
        protocol=_protocol(chosen, experiment, options),
        seeds=tuple(range(chosen.first_seed, chosen.first_seed + chosen.seeds)),
        device=chosen.device,
        resources=_resources(chosen),
        engine=chosen.engine,
        folder=chosen.output or chosen.store / f"{chosen.corpus}-{experiment.name}",
        store=chosen.store,
        merge=chosen.merge,
        other_code=chosen.other_code,
        keep_models=chosen.keep_models,
    )


def _protocol(chosen: argparse.Namespace, experiment: Experiment, options: Options) -> Protocol:
    """Speakers' means are of the test speakers too: then the protocol has to allow that."""
    return Protocol(
        chosen.protocol,
        chosen.folds or FOLDS,
        _validation_share(experiment, options),
        tested=_names(chosen.tested) or (),
        transductive=options.learner.speakers != "off",
        files=chosen.fold_files,
    )


def _resources(chosen: argparse.Namespace) -> Resources:
    limit_s = None if chosen.time_limit is None else 60.0 * chosen.time_limit
    cards = _names(chosen.cards) or ()
    return Resources(chosen.workers, chosen.threads, cards, limit_s, chosen.retries)


def _root(chosen: argparse.Namespace) -> data.Root:
    """What is given, or what the file of roots says."""
    if chosen.root is None:
        return roots.find(chosen.roots).of(chosen.corpus)
    given = chosen.root
    paths = given.values() if isinstance(given, Mapping) else [given]
    for path in paths if chosen.corpus != roots.GENERATED else ():
        if not Path(path).exists():
            raise UsageError(f"--root {path}: there is no such file or folder")
    return chosen.root


def _loading(chosen: argparse.Namespace) -> dict[str, Any]:
    """The loader's options, as what they are; one for a corpus that isn't read is no matter."""
    known = {
        name: default
        for name, default in data.options(chosen.corpus).items()
        if name != "allow_partial" and not callable(default)
    }
    found: dict[str, Any] = {"allow_partial": True} if chosen.allow_partial else {}
    for key, value in chosen.option:
        corpus, dot, name = key.rpartition(".")
        if dot and corpus not in data.names():
            raise UsageError(f"--option {key}: no corpus {corpus!r}; --list has them")
        if dot and corpus not in data.members(chosen.corpus):
            continue
        settable = [n for n, default in known.items() if not callable(default)]
        if name not in settable or name == "allow_partial":
            there = ", ".join(n for n in settable) or "none"
            raise UsageError(f"--option {key}: {chosen.corpus} has no such option; it has {there}")
        if isinstance(known[name], int) and not value.isdigit():
            raise UsageError(f"--option {key}={value}: a whole number")
        found[name] = int(value) if isinstance(known[name], int) else os.path.expanduser(value)
    return found


def _keep_it_short(chosen: argparse.Namespace) -> None:
    """The demonstration's settings, except for those that were asked for."""
    settings = dict(DEMONSTRATION)
    if any((chosen.start_share, chosen.budget, chosen.rounds)):
        del settings["shares"]
    for name, value in settings.items():
        if getattr(chosen, name) is None:
            setattr(chosen, name, value)


def _options(chosen: argparse.Namespace) -> Options:
    strategies = _known("--strategies", chosen.strategies, acquisition.names())
    starts = _known("--starts", chosen.starts, initialization.names())
    names = (
        "start_per_class",
        "step_size",
        "audit_share",
        "states",
        "fine_tuning",
        "warm_start",
        "head",
    )
    backbones = _names(chosen.backbone) or (LearnerConfig.backbone,)
    given = {name: value for name in names if (value := getattr(chosen, name)) is not None}
    learner = LearnerConfig.preset(
        chosen.preset, backbone=backbones[0], speakers=chosen.speakers, **given
    )
    if chosen.epochs is not None:
        learner = replace(learner, training=replace(learner.training, epochs=chosen.epochs))
    tapt = learner.tapt
    if chosen.tapt is not None:
        tapt = TaptConfig() if chosen.tapt == "on" else None
    if tapt is not None:
        tapt = replace(tapt, objective=chosen.tapt_objective)
        if chosen.tapt_epochs is not None:
            tapt = replace(tapt, epochs=chosen.tapt_epochs)
    learner = replace(learner, tapt=tapt)
    return Options(learner, tapt, _shares(chosen), strategies, starts, chosen.full, backbones)


def _shares(chosen: argparse.Namespace) -> tuple[float, ...] | None:
    """The shares asked for: listed, or Algorithm 1's equal rounds; None for the experiment's."""
    schedule = (chosen.start_share, chosen.budget, chosen.rounds)
    if chosen.shares is None:
        if not any(schedule):
            return None
        start = chosen.start_share or DEFAULT_START_SHARE
        budget = chosen.budget or DEFAULT_BUDGET
        rounds = chosen.rounds or DEFAULT_ROUNDS
        if start >= budget:
            raise UsageError(f"--start-share {start:.3%} is not below --budget {budget:.3%}")
        steps = (min(start + budget / rounds * i, budget) for i in range(1, rounds + 1))
        return tuple(dict.fromkeys(round(share, 6) for share in (start, *steps)))
    if any(schedule):
        raise UsageError("--shares lists every round; leave --start-share, --budget, --rounds out")
    try:
        shares = tuple(percentage(text) for text in chosen.shares.split(","))
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise UsageError(f"--shares {chosen.shares}: {error}") from None
    if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
        raise UsageError(f"--shares {chosen.shares}: each has to be larger than the one before")
    return shares


def _validation_share(experiment: Experiment, options: Options) -> float:
    """Where no system looks at validation labels, what would have held them is training data.

    Else the same recordings are set apart for all, so that all have the same to learn from.
    """
    arms = experiment.design(options).arms
    return VALIDATION_SHARE if any(arm.system.validates for arm in arms) else 0.0


def _known(option: str, text: str | None, known: Sequence[str]) -> tuple[str, ...] | None:
    if text == "all":
        return tuple(known)
    chosen = _names(text)
    for name in chosen or ():
        if name not in known:
            raise UsageError(f"{option}: no {name!r}; there are {', '.join(known)}")
    return chosen


def _names(text: str | None) -> tuple[str, ...] | None:
    names = tuple(filter(None, (part.strip() for part in (text or "").split(","))))
    return tuple(dict.fromkeys(names)) or None
