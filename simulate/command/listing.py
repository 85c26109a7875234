"""What there is to choose from, each with a line that its own object or file says of it.

A new file of an experiment, corpus, system or strategy appears here by itself.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from types import ModuleType

from after_model import acquisition, backbone, initialization
from after_model.active_learning import PRESETS, LearnerConfig
from simulate import data, experiments, protocols, systems
from simulate.data import loaders, merges, policies

Lines = dict[str, str]
"""A line about each, by its name."""


def sections() -> dict[str, Lines]:
    """All there is, by what it is and how it is asked for."""
    return {
        "experiments (--experiment)": {n: _experiment(n) for n in experiments.names()},
        "corpora (--corpus)": _corpora(),
        "label policies (--labels)": policies.SUMMARIES,
        "protocols (--protocol)": protocols.summaries(),
        "presets (--preset)": {name: _preset(name) for name in PRESETS},
        "strategies (--strategies)": _each(acquisition.names(), acquisition, _first),
        "starts (--starts)": {name: _start(name) for name in initialization.names()},
        "backbones (--backbone)": _backbones(),
        "systems": _each(systems.names(), systems, _first),
    }


def text(width: int | None = None) -> str:
    """The sections one below the other, wrapped; width: in characters, None for the terminal's."""
    width = width or min(100, shutil.get_terminal_size().columns)
    blocks = []
    for title, lines in sections().items():
        column = max(len(name) for name in lines) + 4
        wrapped = [
            textwrap.fill(
                f"{f'  {name}':{column}}{line}",
                width,
                subsequent_indent=" " * column,
                break_on_hyphens=False,
            )
            for name, line in lines.items()
        ]
        blocks.append("\n".join([f"{title}:", *wrapped]))
    return "\n\n".join(blocks)


def _experiment(name: str) -> str:
    found = experiments.get(name)
    return f"{found.title}. {found.paper}"


def _corpora() -> Lines:
    published = {merge.name: merge for merge in merges.PUBLISHED}
    single = [name for name in data.names() if name not in published]
    lines = _each(single, loaders, _first)
    for name, merge in published.items():
        members = ", ".join(member.corpus for member in merge.members)
        lines[name] = f"The paper's: {members}; tested: {', '.join(merge.tested)}."
    return lines


def _preset(name: str) -> str:
    learner = LearnerConfig.preset(name)
    tapt = "no TAPT" if learner.tapt is None else "TAPT"
    return (
        f"{learner.start} start, {learner.strategy}, {tapt}, fine-tuning {learner.fine_tuning}, "
        f"head {learner.head}, {learner.step_size} at a time"
    )


def _start(name: str) -> str:
    """A start that is a strategy as well has a file of its own that says what it is."""
    select = initialization.get(name).select
    module = inspect.getmodule(select)
    own = module is None or module is initialization
    return _sentence((inspect.getdoc(select) if own else module.__doc__) or "")


def _backbones() -> Lines:
    lines = {}
    for folder in sorted(path.parent for path in backbone.WEIGHTS.glob("*/config.json")):
        _, _, about = (folder / "README.md").read_text(encoding="utf-8").partition("\n")
        lines[folder.name] = _sentence(about).partition(":")[0]
    families = ", ".join(backbone.FAMILIES)
    return {**lines, "a folder, or a name on the hub": f"of the families {families}."}


def _each(
    names: Iterable[str], package: ModuleType, line: Callable[[ModuleType], str]
) -> dict[str, str]:
    """What the file of each name in a package says."""
    return {
        name: line(importlib.import_module(f"{package.__name__}.{name.replace('-', '_')}"))
        for name in names
    }


def _first(module: ModuleType) -> str:
    return _sentence(module.__doc__ or "")


def _sentence(text: str) -> str:
    """The first sentence of a text, on one line."""
    paragraph = " ".join(text.strip().partition("\n\n")[0].split())
    return re.split(r"(?<=\.)\s+(?=[A-Z])", paragraph)[0]
