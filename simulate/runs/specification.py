"""What a run is called by: everything that decides its result, and nothing else.

Recordings by what is in their files, not by where they lie; the fold by who is in which part; the
system by all of its values and the weights it begins with; what computes by device, libraries and
the code itself. Two machines that differ in any of it have different names for their runs, so their
rows never pass for each other. Left out, since results do not depend on them: the display name,
workers, engines, and the processor and its threads, which a row names in `machine`.
"""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from after_model.device import resolve_device
from simulate.cache import Contents
from simulate.data import Corpus
from simulate.identity import digest
from simulate.protocols import Fold

LIBRARIES = ("torch", "torchaudio", "transformers", "numpy", "scikit-learn", "scipy")
PROJECT = Path(__file__).resolve().parents[2]
CODE = ("after_model", "simulate/task.py", "simulate/systems/base.py", "simulate/runs/running.py")
"""What every run's result goes through, beside its own system's file."""
IDLE = ("__main__.py",)
"""Files that only a command line needs."""


@dataclass(frozen=True)
class Content:
    """What is in a fold: hashes of its parts, recordings and labels in their order.

    recordings: of the training part's audio alone, what TAPT depends on. sizes: recordings in
    training, validation and test part, and unused.
    """

    recordings: str
    train: str
    validation: str
    test: str
    sizes: tuple[int, int, int, int]


@dataclass(frozen=True)
class Place:
    """What computes. code: of the system; libraries: their versions."""

    device: str
    libraries: tuple[tuple[str, str], ...]
    code: str


def contents(corpus: Corpus, folds: list[Fold], known: Contents) -> list[Content]:
    """Of each fold."""
    hashes = known.hashes(item.path for item in corpus.items)
    targets = corpus.targets
    raters = [[one.item, one.rater, list(one.labels)] for one in corpus.annotations]
    said: dict[str, list[Any]] = {}
    for item, rater, labels in raters:
        said.setdefault(str(item), []).append([rater, labels])
    rows = [
        [item.id, found, item.corpus, item.speaker, item.group, target.tolist(), said.get(item.id)]
        for item, found, target in zip(corpus.items, hashes, targets, strict=True)
    ]

    def part(indices: np.ndarray) -> str:
        return digest([list(corpus.classes), [rows[i] for i in indices]])

    return [
        Content(
            digest([rows[i][:2] for i in fold.train]),
            part(fold.train),
            part(fold.validation),
            part(fold.test),
            (
                *(len(indices) for indices in fold.parts().values()),
                len(fold.unused(len(corpus))),
            ),  # type: ignore[arg-type]
        )
        for fold in folds
    ]


def place(system: str, device: str) -> Place:
    """What this machine computes a system with. device: as torch knows it, or "auto"."""
    where = resolve_device(device)
    name = where.type
    if where.type == "cuda":
        name += f" {torch.cuda.get_device_name(where)}"
    versions = tuple((library, metadata.version(library)) for library in LIBRARIES)
    return Place(name, versions, code(system))


@lru_cache(maxsize=64)
def code(system: str) -> str:
    """A hash of what the code does: of its syntax trees, comments and docstrings left out."""
    module = f"simulate/systems/{system.replace('-', '_')}.py"
    helpers = sorted(p.relative_to(PROJECT) for p in (PROJECT / "simulate/systems").glob("_*.py"))
    hasher = hashlib.sha256()
    for name in (*CODE, module, *map(str, helpers)):
        path = PROJECT / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            if file.name not in IDLE:
                hasher.update(str(file.relative_to(PROJECT)).encode())
                hasher.update(_meaning(file).encode())
    return hasher.hexdigest()[:16]


@lru_cache(maxsize=1024)
def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and isinstance(node, (ast.Module, ast.ClassDef, *_FUNCTIONS)):
            node.body = [line for line in body if not _is_text(line)]
    return ast.dump(tree)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _is_text(line: ast.stmt) -> bool:
    """A docstring, of whatever it documents."""
    return isinstance(line, ast.Expr) and isinstance(getattr(line.value, "value", None), str)
