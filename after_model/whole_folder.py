"""A folder that appears whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """A new folder beside `to` to write into, which becomes `to` where nothing was raised.

    Raises FileExistsError where `to` holds something.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise FileExistsError(f"{to}: is there already; name a folder that is new or empty")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as beside:
        folder = Path(beside) / to.name
        folder.mkdir()
        yield folder
        if to.exists():
            to.rmdir()  # empty
        folder.rename(to)
