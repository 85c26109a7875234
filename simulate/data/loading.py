"""Reading a corpus by its name: `load("emodb", root)` calls `read(root)` of `loaders/emodb.py`.

`merged`, `merged-2` and `merged-3` are the paper's (`merges.py`), `emodb+ravdess` any other merge.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simulate.data import loaders, merging
from simulate.data.corpus import Corpus, Release, select
from simulate.data.errors import CorpusError, some
from simulate.data.merges import PUBLISHED, Merge

Root = str | Path | Mapping[str, str | Path] | None
"""A folder or file, or one for each corpus of a merge by its name."""


def names() -> list[str]:
    """The corpora that `load` knows by one name, the paper's merges included, sorted."""
    return sorted([*_loaders(), *(merge.name for merge in PUBLISHED)])


def members(name: str) -> tuple[str, ...]:
    """The corpora behind a name: itself, or those of a merge. Raises `CorpusError`."""
    found = merge_of(name)
    parts = tuple(m.corpus for m in found.members) if found else tuple(name.split("+"))
    unknown = [part for part in parts if part not in _loaders()]
    if unknown:
        raise CorpusError(
            f"no corpus {some(map(repr, unknown))}; known: {', '.join(names())}, and several with "
            "+ between, such as emodb+ravdess"
        )
    if len(set(parts)) < len(parts):
        raise CorpusError(f"{name}: a corpus is merged with itself; name each once")
    return parts


def root_of(text: str) -> Root:
    """What a command line names as root: a path, or `emodb=PATH,ravdess=PATH` for a merge.

    A path with `=` in it is a path unless a corpus's name is before it.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if all(sign and name.strip() in _loaders() for name, sign, _ in pairs):
        return {name.strip(): Path(path.strip()).expanduser() for name, _, path in pairs}
    return Path(text).expanduser()


def root_of_corpus(name: str, root: Root) -> Path | None:
    """The folder of one corpus. Raises `CorpusError` where the roots are of others."""
    if isinstance(root, Mapping):
        if name not in root:
            raise CorpusError(f"{name}: no root among those given ({some(root) or 'none'})")
        root = root[name]
    return None if root is None else Path(root).expanduser()


def load(
    name: str,
    root: Root = None,
    classes: Sequence[str] | None = None,
    policy: str | None = None,
    **options: Any,
) -> Corpus:
    """The corpus of this name, with the labels of a policy.

    `root` is the corpus's folder or the folder that holds it (manifest: the manifest or its
    folder; demo: the folder to generate into, or None for the user's cache); for a merge a folder
    for each corpus by name, or one that holds them all. `classes` restricts and orders the
    classes; None takes the corpus's own default. `policy` is one of `policies.names()`; None takes
    the labels that the release publishes, or else its raters' majority. `options` are the loader's,
    for a merge those that any of its loaders has. Raises `CorpusError`.
    """
    parts = members(name)
    _check_options(name, parts, options)
    merge = merge_of(name)
    if merge is not None:
        releases = [
            _read(m.corpus, root_of_corpus(m.corpus, root), tuple(m.mapping), options)
            for m in merge.members
        ]
        return merging.merged(merge, releases, classes, policy)
    if len(parts) > 1:
        releases = [_read(part, root_of_corpus(part, root), classes, options) for part in parts]
        return merging.merged(merging.of_list(name, releases, classes), releases, classes, policy)
    return select(_read(name, root_of_corpus(name, root), classes, options), classes, policy)


def read(
    name: str, root: Root = None, classes: Sequence[str] | None = None, **options: Any
) -> Release:
    """All that a corpus releases, of one that is no merge. Raises `CorpusError`, see `load`."""
    _check_options(name, [name], options)
    return _read(name, root_of_corpus(name, root), classes, options)


def options(name: str) -> dict[str, Any]:
    """The defaults of the options that the loaders of a corpus have, by the options' names."""
    return {
        parameter.name: parameter.default
        for part in members(name)
        for parameter in inspect.signature(_reader(part)).parameters.values()
        if parameter.name in _accepted(part)
    }


def _loaders() -> list[str]:
    modules = pkgutil.iter_modules(loaders.__path__)
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def _reader(name: str) -> Callable[..., Release]:
    reader: Callable[..., Release] = importlib.import_module(f"{loaders.__name__}.{name}").read
    return reader


def _accepted(name: str) -> list[str]:
    parameters = inspect.signature(_reader(name)).parameters
    return [parameter for parameter in parameters if parameter not in ("root", "classes")]


def _check_options(name: str, parts: Sequence[str], options: Mapping[str, Any]) -> None:
    accepted = list(dict.fromkeys(option for part in parts for option in _accepted(part)))
    unknown = sorted(set(options) - set(accepted))
    if unknown:
        raise CorpusError(
            f"{name}: no option {some(unknown)}; known: {', '.join(accepted) or 'none'}"
        )


def _read(
    name: str, root: Path | None, classes: Sequence[str] | None, options: Mapping[str, Any]
) -> Release:
    own = {option: value for option, value in options.items() if option in _accepted(name)}
    return _reader(name)(root, classes=classes, **own)


def merge_of(name: str) -> Merge | None:
    """The paper's merge of that name."""
    return next((merge for merge in PUBLISHED if merge.name == name), None)
