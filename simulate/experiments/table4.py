"""Table 4: what is behind each system: weights, data before this one, and the seconds it takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulate.analysis.material import Material, Section, Table
from simulate.analysis.published import everything, systems
from simulate.experiments import Experiment
from simulate.experiments._compared import compared
from simulate.systems._weights import loaded
from simulate.systems.after import After


def draw(material: Material) -> Sequence[Section]:
    """A row a system: the paper's words, and of those that ran what was measured."""
    printed = {(row.system, row.metric): row.text for row in everything() if row.table == 4}
    rows = []
    for system in systems(4):
        words = [printed[system, m] for m in ("backbone", "million weights", "pre-training")]
        rows.append((system, *words, *_measured(material, system)))
    header = ("system", "backbone", "million weights", "pre-training", "backbone here",
              "million weights here", "seconds a run here", "runs")  # fmt: skip
    note = (
        "The first columns are as the paper prints them. Seconds are those of whole runs, "
        "preparing, asking and training, on the machine named below; encoding is left out."
    )
    return [Section("Architectures and what they take", note, (Table(header, tuple(rows)),))]


def _measured(material: Material, name: str) -> tuple[str, str, str, str]:
    done = [(run, row) for run, row in material.summary.done if run.arm.name == name]
    if not done:
        return "", "", "", "published only"
    system = done[0][0].arm.system
    size = ""
    if isinstance(system, After):
        size = f"{sum(p.numel() for p in loaded(system.backbone).parameters()) / 1e6:.1f}"
    seconds = np.array([row["minutes"] * 60 for _, row in done])
    return system.backbone or "none", size, f"{seconds.mean():.1f}", str(len(done))


EXPERIMENT = Experiment(
    "table4",
    "What is behind each system",
    "Table 4: backbones, their size and what they were trained on before.",
    compared(4),
    draws=(draw,),
)
