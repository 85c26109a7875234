"""The folder of an adaptation: who it belongs to, log, checkpoints, and what it ends with.

Everything that a later run reads is written beside and renamed, so that a kill at any point leaves
either the old or the new. tapt.json is written last and makes the folder complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from after_model.tapt.config import HeldOut, TaptConfig, TaptError, TaptReport
from after_model.tapt.objectives import TaptModel
from after_model.tapt.units import Units


class Folder:
    """Reads and writes the files of one adaptation."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.done = root / "tapt.json"
        self.begun = root / "tapt_begun.json"
        self.units = root / "tapt_units.safetensors"
        self.log_file = root / "tapt_log.jsonl"

    # --- whose folder it is --------------------------------------------------------------------

    def report(self, identity: dict[str, Any]) -> TaptReport | None:
        """The report of a finished folder. Raises TaptError if it holds another adaptation."""
        for file in (self.done, self.begun):
            if file.exists():
                self._compare(json.loads(file.read_text())["identity"], identity)
        if not self.done.exists():
            return None
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

    def _compare(self, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        differing = [
            f"{name} was {stored.get(name)!r} and is now {wanted.get(name)!r}"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
        ]
        if differing:
            raise TaptError(
                f"{self.root} holds another adaptation: {'; '.join(differing)}. "
                "Give another folder, or delete this one"
            )

    def begin(self, identity: dict[str, Any]) -> None:
        """Make the folder and mark whose it is."""
        self.root.mkdir(parents=True, exist_ok=True)
        for left_over in self.root.glob("*.new"):
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        if not self.begun.exists():
            self.log_file.unlink(missing_ok=True)
            self._write_json(self.begun, {"identity": identity})

    def abandon(self) -> None:
        """After a collapse: forget the run but for its log, so that the folder can be reused."""
        for checkpoint in self._checkpoints():
            shutil.rmtree(checkpoint)
        self.units.unlink(missing_ok=True)
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
        for checkpoint in self._checkpoints():
            shutil.rmtree(checkpoint)
        self.begun.unlink()

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(content, indent=1) + "\n")
        _sync(new)
        os.replace(new, path)
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
