"""Reading a corpus by its name: `load("emodb", root)` calls `load(root)` of `loaders/emodb.py`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulate.data import loaders
from simulate.data.corpus import Corpus, CorpusError, some


def names() -> list[str]:
    """The corpora that `load` knows, sorted."""
    return sorted(
        m.name for m in pkgutil.iter_modules(loaders.__path__) if not m.name.startswith("_")
    )


def load(
    name: str,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    **options: Any,
) -> Corpus:
    """Reads a corpus by name.

    `root` is the corpus's folder or the folder that holds it (manifest: the manifest or its
    folder; demo: the folder to generate into, or None for the user's cache). `classes` restricts
    and orders the classes; None takes the corpus's own default. Raises `CorpusError`.
    """
    if name not in names():
        raise CorpusError(f"no corpus {name!r}; known: {', '.join(names())}")
    loader = importlib.import_module(f"{loaders.__name__}.{name}").load
    accepted = [p for p in inspect.signature(loader).parameters if p not in ("root", "classes")]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise CorpusError(
            f"{name}: no option {some(unknown)}; known: {', '.join(accepted) or 'none'}"
        )
    corpus: Corpus = loader(None if root is None else Path(root), classes=classes, **options)
    return corpus
