"""The folder of an adaptation: what it adapts to, log, checkpoints, and what it ends with.

Everything that a later run reads is written beside and renamed, so that a kill at any point leaves
either the old or the new. tapt.json is written last and makes the folder complete.

An identity (backbone and settings) and a plan (the recordings and their lengths) decide what an
adaptation does. Both are fixed when it begins: recordings that go or come meanwhile don't stop it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from after_model.tapt.config import HeldOut, TaptConfig, TaptError, TaptReport
from after_model.tapt.objectives import TaptModel
from after_model.tapt.units import Units


@dataclass(frozen=True)
class Plan:
    """What an adaptation was begun with: ids, and the frames of those to train on.

    skipped: what could not be read then, with the reason.
    """

    utterances: tuple[str, ...]
    frames: tuple[int, ...]
    held_out: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Folder:
    """Reads and writes the files of one adaptation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.done = root / "tapt.json"
        self.begun = root / "tapt_begun.json"
        self.plan_file = root / "tapt_plan.json"
        self.units = root / "tapt_units.safetensors"
        self.log_file = root / "tapt_log.jsonl"

    # --- what it adapts to ---------------------------------------------------------------------

    def report(
        self, identity: dict[str, Any], utterances: Sequence[str], held_out: Sequence[str]
    ) -> TaptReport | None:
        """The report of a finished folder, None while it is unfinished.

        Recordings may have gone and some come since it was made. Raises TaptError, naming what
        differs, if backbone or settings were others, most recordings are others, or it was trained
        on one that is now held out.
        """
        if not self.done.exists():
            return None
        differing = _differences(json.loads(self.done.read_text())["identity"], identity)
        plan = self.plan()
        if plan is not None:  # earlier releases wrote none
            trained = set(plan.utterances)
            known = sum(i in trained for i in utterances)
            if 2 * known < len(utterances):
                differing.append(f"{known} of the {len(utterances)} utterances are in it")
            differing += [f"{i}, now held out, was trained on" for i in held_out if i in trained]
        if differing:
            raise TaptError(
                f"{self.root} holds another adaptation: {'; '.join(differing[:5])}. Give another "
                "folder, delete this one, or ask for a restart"
            )
        self._drop_unfinished()  # a kill may have come between
        return self.stored_report()

    def stored_report(self) -> TaptReport:
        """The report of a finished folder."""
        stored = json.loads(self.done.read_text())["report"]
        for name in ("before", "after"):
            stored[name] = HeldOut(**stored[name]) if stored[name] else None
        stored["skipped"] = tuple(stored["skipped"])
        return TaptReport(folder=self.root, **stored)

    def finished_config(self) -> TaptConfig:
        """The settings of a finished folder. Raises TaptError if it is none."""
        if not self.done.exists():
            raise TaptError(f"{self.root}: no finished adaptation (tapt.json is missing)")
        identity = json.loads(self.done.read_text())["identity"]
        names = {field.name for field in dataclasses.fields(TaptConfig)}
        return TaptConfig(**{k: v for k, v in identity.items() if k in names})

    def begin(
        self,
        identity: dict[str, Any],
        utterances: Sequence[str],
        held_out: Sequence[str],
        restart: bool,
    ) -> None:
        """Make the folder ready: what can go on is kept, anything else forgotten.

        An unfinished adaptation goes on when backbone and settings are the same, at least half of
        its recordings are among the utterances and none of them is held out now.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for left_over in self.root.glob("*.new"):
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        if not restart and self._goes_on(identity, set(utterances), set(held_out)):
            return
        self.done.unlink(missing_ok=True)
        self.abandon()
        self.plan_file.unlink(missing_ok=True)
        self.log_file.unlink(missing_ok=True)
        self._write_json(self.begun, {"identity": identity})

    def _goes_on(self, identity: dict[str, Any], given: set[str], held_out: set[str]) -> bool:
        if not self.begun.exists():
            return False
        if _differences(json.loads(self.begun.read_text())["identity"], identity):
            return False
        plan = self.plan()
        if plan is None:  # it had not come so far, or an earlier release began it
            return not self._checkpoints()
        still = sum(i in given for i in plan.utterances)
        return 2 * still >= len(plan.utterances) and held_out.isdisjoint(plan.utterances)

    def plan(self) -> Plan | None:
        """What the adaptation was begun with; None before that is known."""
        if not self.plan_file.exists():
            return None
        stored = json.loads(self.plan_file.read_text())
        return Plan(**{name: tuple(values) for name, values in stored.items()})

    def write_plan(self, plan: Plan) -> None:
        """Fix what the adaptation is made from."""
        self._write_json(self.plan_file, dataclasses.asdict(plan))

    def abandon(self) -> None:
        """After a collapse: forget the run but for its log, so that the folder can be reused."""
        self._drop_unfinished()
        self.units.unlink(missing_ok=True)

    def _drop_unfinished(self) -> None:
        """What only a run that goes on needs."""
        for checkpoint in self._checkpoints():
            shutil.rmtree(checkpoint, ignore_errors=True)
        self.begun.unlink(missing_ok=True)

    def write_units(self, units: Units) -> None:
        """Write the units of "hubert"."""
        new = self.units.with_suffix(".new")
        units.save(new)
        os.replace(new, self.units)

    # --- log -----------------------------------------------------------------------------------

    def log(self, record: dict[str, float]) -> None:
        """Append one step."""
        rounded = {name: float(f"{value:.6g}") for name, value in record.items()}
        with self.log_file.open("a") as file:
            file.write(json.dumps(rounded) + "\n")

    def last_record(self) -> dict[str, float]:
        """The last step in the log; empty without one."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        return json.loads(lines[-1]) if lines else {}

    def cut_log(self, step: int) -> None:
        """Forget what was logged after a step, and a line that a kill left unfinished."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        new = self.log_file.with_suffix(".new")
        new.write_text("".join(line + "\n" for line in lines[:step]))
        os.replace(new, self.log_file)

    # --- checkpoints ---------------------------------------------------------------------------

    def save_checkpoint(self, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the last checkpoint: weights as safetensors, optimizer state by torch.save."""
        older = self._checkpoints()
        new = self.root / "checkpoint.new"
        shutil.rmtree(new, ignore_errors=True)  # a full disk may have cut one short
        new.mkdir()
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in weights.items()},
            new / "model.safetensors",
        )
        torch.save(state, new / "state.pt")
        for file in new.iterdir():
            _sync(file)
        os.replace(new, self.root / f"checkpoint-{step:08d}")
        _sync(self.root)
        for checkpoint in older:
            shutil.rmtree(checkpoint, ignore_errors=True)

    def load_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Step, weights and state of the last checkpoint."""
        checkpoints = self._checkpoints()
        if not checkpoints:
            return None
        last = checkpoints[-1]
        state = torch.load(last / "state.pt", map_location="cpu", weights_only=True)
        return int(last.name.split("-")[1]), load_file(last / "model.safetensors"), state

    def _checkpoints(self) -> list[Path]:
        return sorted(self.root.glob("checkpoint-????????"))

    # --- the end -------------------------------------------------------------------------------

    def finish(self, model: TaptModel, report: TaptReport) -> None:
        """Write backbone, heads and report; then drop what only a resumed run needs."""
        model.backbone.save(self.root)
        model.save_heads(self.root)
        for file in self.root.glob("*.safetensors"):
            _sync(file)
        identity = json.loads(self.begun.read_text())["identity"]
        stored = dataclasses.asdict(report)
        del stored["folder"]
        self._write_json(self.done, {"identity": identity, "report": stored})
        self._drop_unfinished()

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        _sync(new)
        os.replace(new, path)
        _sync(path.parent)


def _differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs; a setting that the stored identity does not know had its default."""
    fields = {field.name: field.default for field in dataclasses.fields(TaptConfig)}
    earlier = {name: fields[name] for name in wanted if name in fields} | stored
    return [
        f"{name} was {earlier.get(name)!r} and is now {value!r}"
        for name, value in sorted(wanted.items())
        if earlier.get(name) != value
    ]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
