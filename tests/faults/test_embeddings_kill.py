"""A process killed while it appends embeddings loses the rows being written at most."""

from __future__ import annotations

import itertools
import os
import signal
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from after_model.features import Embeddings
from after_model.features import embeddings as module

WIDTH, BATCH = 5, 4


def keys(batch: int) -> list[str]:
    return [f"{batch * BATCH + i:020x}{1:012x}" for i in range(BATCH)]


def values(batch: int) -> np.ndarray:
    return np.arange(BATCH * WIDTH, dtype=np.float32).reshape(BATCH, WIDTH) + batch


class Dying:
    """A file that is written a byte at a time, for some bytes, and then its process is dead."""

    def __init__(self, file: Any, left: itertools.count) -> None:
        self.file, self.left = file, left

    def __enter__(self) -> Dying:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: Any) -> None:
        for byte in bytes(data):
            self.file.write(bytes([byte]))
            self.file.flush()
            if next(self.left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def append(folder: Path, batches: int, after: int) -> None:
    """Append batches; dead after so many bytes of anything, for good."""
    left = itertools.count(after, -1)
    opened = Path.open
    module.Path.open = lambda path, *args: (  # type: ignore[method-assign]
        opened(path, *args) if args == ("rb",) else Dying(opened(path, *args), left)
    )
    embeddings = Embeddings(folder, "encoder", WIDTH)
    for batch in range(batches):
        embeddings.append(keys(batch), values(batch))


# A batch is 64 bytes of keys, 40 of values and 44 of the header; the files' beginnings 8,192.
@pytest.mark.parametrize("after", [0, 40, 4_095, 4_096, 8_191, *range(8_192, 8_192 + 320, 13)])
def test_a_writer_killed_at_a_byte_loses_its_last_rows_at_most(
    tmp_path: Path, processes: BaseContext, after: int
) -> None:
    process = processes.Process(target=append, args=(tmp_path, 3, after))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    embeddings = Embeddings(tmp_path, "encoder", WIDTH)
    finished = max(0, after + 1 - 8_192) // 148
    header_begun = max(0, after + 1 - 8_192) % 148 > 104
    there = len(embeddings) // BATCH
    # a header is written in one piece, not in 44 as here: that it is torn can only be seen
    assert there == finished or (header_begun and there in (0, finished + 1))
    for batch in range(3):
        embeddings.append(keys(batch), values(batch))
    again = Embeddings(tmp_path, "encoder", WIDTH)
    rows = again.rows([key for batch in range(3) for key in keys(batch)])
    assert sorted(rows) == list(range(3 * BATCH))
    expected = np.concatenate([values(batch) for batch in range(3)]).astype("f2")
    np.testing.assert_array_equal(again.matrix[rows], expected)
