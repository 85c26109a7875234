"""A request that can be carried out: its corpus read, its runs planned, what is known of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from after_model.device import resolve_device
from simulate import data, experiments, protocols
from simulate.analysis.summary import percent
from simulate.cache import Cache
from simulate.command.request import Request
from simulate.command.values import UsageError
from simulate.data import RELEASE, Corpus
from simulate.experiments import Design, Experiment
from simulate.runs.plan import Job, Run, jobs, runs
from simulate.runs.store import Row, Store, finished


@dataclass(frozen=True)
class Prepared:
    """A request that can be carried out: everything in it has been read and checked.

    borrowed: ids of rows that stand for a run's, though the code was another then.
    """

    request: Request
    corpus: Corpus
    experiment: Experiment
    design: Design
    runs: list[Run]
    todo: list[Job]
    store: Store
    borrowed: dict[str, str]

    def rows(self) -> dict[str, Row]:
        """The runs' rows as they are now."""
        own = [self.borrowed.get(run.run_id, run.run_id) for run in self.runs]
        found = self.store.rows(own)
        pairs = zip(self.runs, own, strict=True)
        return {run.run_id: found[id_] for run, id_ in pairs if id_ in found}


def prepare(request: Request) -> Prepared:
    """Raises ValueError or OSError for what the person who asked has to mend."""
    corpus = data.load(
        request.corpus, request.root, request.classes, request.labels, **request.loading
    )
    experiment = experiments.get(request.experiment)
    design = experiment.design(request.options)
    check(request, design, corpus)
    cache = Cache(request.store / "cache")
    planned = runs(corpus, request.protocol, design.arms, request.seeds, cache, request.device)
    store = Store(request.store / "rows")
    borrowed = {}
    if request.other_code:
        siblings, own = store.siblings(), set(store.ids())
        ids = {run.run_id: siblings.get(run.sibling_id) for run in planned}
        borrowed = {id_: other for id_, other in ids.items() if other and id_ not in own}
    known = store.rows([borrowed.get(run.run_id, run.run_id) for run in planned])
    todo = jobs(
        run for run in planned if not finished(known.get(borrowed.get(run.run_id, run.run_id)))
    )
    return Prepared(request, corpus, experiment, design, planned, todo, store, borrowed)


def check(request: Request, design: Design, corpus: Corpus) -> None:
    """What can be known to fail before anything is computed. Raises ValueError (`UsageError`)."""
    try:
        torch.empty(1, device=resolve_device(request.device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {request.device} can't be used here: {reason}") from None
    smallest = min(len(fold.train) for fold in protocols.folds_of(request.protocol, corpus))
    for arm in design.arms:
        try:
            arm.system.check(arm.shares, smallest, len(corpus.classes))
        except ValueError as error:
            raise UsageError(f"{arm.name}: {error}") from None


def announce(prepared: Prepared) -> None:
    """Says what is going to be done."""
    request, corpus, planned = prepared.request, prepared.corpus, prepared.runs
    print(f"{prepared.experiment.title}: {corpus.name}, {len(corpus)} recordings")
    for note in notes(corpus):
        print(f"  {note}")
    shares = dict.fromkeys(percent(s) for arm in prepared.design.arms for s in arm.shares)
    print(f"  {'; '.join(arm.name for arm in prepared.design.arms)}")
    print(f"  protocol: {request.protocol.title}")
    folds, seeds = len({run.fold for run in planned}), len(request.seeds)
    print(f"  labels: {', '.join(shares)}; folds: {folds}; seeds: {seeds}")
    before = len(planned) - sum(job.kind == "run" for job in prepared.todo)
    already = f", {before} of them finished before" if before else ""
    print(f"{len(planned)} runs{already}; results in {request.folder.resolve()}", flush=True)
    if prepared.todo and sys.stdout.isatty():
        print("Ctrl-C stops; the same command goes on.")


def notes(corpus: Corpus) -> list[str]:
    """What a reader has to know of the recordings and their labels."""
    by = [] if corpus.policy == RELEASE else [f"labels by the policy {corpus.policy!r}"]
    return [*by, *corpus.notes]
