"""Reading a corpus by its name: `load("emodb", root)` calls `read(root)` of `loaders/emodb.py`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simulate.data import loaders
from simulate.data.corpus import Corpus, Release, select
from simulate.data.errors import CorpusError, some


def names() -> list[str]:
    """The corpora that `load` knows, sorted."""
    modules = pkgutil.iter_modules(loaders.__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def load(
    name: str,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    policy: str | None = None,
    **options: Any,
) -> Corpus:
    """The corpus of this name, with the labels of a policy.

    `root` is the corpus's folder or the folder that holds it (manifest: the manifest or its
    folder; demo: the folder to generate into, or None for the user's cache). `classes` restricts
    and orders the classes; None takes the corpus's own default. `policy` is one of
    `policies.names()`; None takes the labels that the release publishes, or else its raters'
    majority. Raises `CorpusError`.
    """
    if name not in names():
        raise CorpusError(f"no corpus {name!r}; known: {', '.join(names())}")
    read: Callable[..., Release] = importlib.import_module(f"{loaders.__name__}.{name}").read
    accepted = [p for p in inspect.signature(read).parameters if p not in ("root", "classes")]
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise CorpusError(
            f"{name}: no option {some(unknown)}; known: {', '.join(accepted) or 'none'}"
        )
    release = read(None if root is None else Path(root), classes=classes, **options)
    return select(release, classes, policy)
