"""Systems: AFTER, and what it is compared with; one file each, found by its name.

`get("probe")` is the class `SYSTEM` of `simulate/systems/probe.py`: a new system is a new file.
"""

from __future__ import annotations

import importlib
import pkgutil

from simulate.systems.base import Context, Cost, Stage, System

__all__ = ["Context", "Cost", "Stage", "System", "get", "names"]


def names() -> list[str]:
    """The systems that `get` knows, sorted."""
    found = (m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return sorted(name.replace("_", "-") for name in found if name != "base")


def get(name: str) -> type[System]:
    """The system of that name; ValueError listing the known names for any other."""
    if name not in names():
        raise ValueError(f"no system {name!r}; known: {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    system: type[System] = module.SYSTEM
    return system
