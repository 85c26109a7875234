"""The table at the end, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.settings import Row, Side

WIDTH = 132
CAPTION = """\
audio-s/s: seconds of audio per second, the median pass. ratio: ours to that peer. peak: share of
the fastest matrix product measured here that the work without padding comes to. cpu: milliseconds
of processors a second of audio. padding: frames computed per frame needed. memory: peak, and what
the work added to the loaded model. difference: the largest of the outputs'; inexact: not the same
computation, or not in float32.\
"""


def new_console() -> Console:
    """As wide as the table, where no terminal says how wide it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def show(
    rows: Sequence[Row],
    peaks: Mapping[str, float],
    about: Mapping[str, str],
    console: Console | None = None,
) -> None:
    """Print the table; peaks in GFLOP/s by dtype."""
    console = console or new_console()
    table = Table(box=box.SIMPLE, pad_edge=False, caption=CAPTION, caption_justify="left")
    table.add_column("", no_wrap=True)
    for title in (
        "audio-s/s",
        "ratio",
        "aim",
        "peak",
        "cpu",
        "padding",
        "memory (MB)",
        "difference",
    ):
        table.add_column(title, justify="right", no_wrap=True)
    task = ""
    for row in rows:
        if row.task != task:  # ours once, whoever is beside it
            task = row.task
            table.add_row(task, *_cells(row.ours, peaks, ("", "")), "")
        numbers = (f"{row.ratio:.2f}", f"{row.aim:g}" if row.aim else "")
        difference = f"{row.difference:.1e}" + ("" if row.exact else " (inexact)")
        table.add_row(f"  {row.theirs.name}", *_cells(row.theirs, peaks, numbers), difference)
    for name, value in about.items():
        console.print(f"{name}: {value}")
    listed = ", ".join(f"{name} {gflops:,.0f} GFLOP/s" for name, gflops in peaks.items())
    console.print(f"fastest matrix product: {listed}\n")
    console.print(table)
    for row in rows:
        for remark in row.remarks:
            console.print(f"{row.task}: {remark}", soft_wrap=True)


def write(
    path: Path, rows: Sequence[Row], peaks: Mapping[str, float], about: Mapping[str, str]
) -> None:
    """Everything that was measured, every pass of it."""
    content: dict[str, Any] = {
        "about": dict(about),
        "peak_gflops": dict(peaks),
        "rows": [
            asdict(row)
            | {"ratio": row.ratio}
            | {
                side: asdict(getattr(row, side)) | _derived(getattr(row, side), peaks)
                for side in ("ours", "theirs")
            }
            for row in rows
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _cells(side: Side, peaks: Mapping[str, float], middle: tuple[str, str]) -> tuple[str, ...]:
    derived = _derived(side, peaks)
    memory = side.memory
    shown = f"{memory.peak_mb:,.0f} (+{memory.work_mb:,.0f})" if memory.peak_mb else ""
    return (
        f"{derived['audio_s_per_s']:.1f}",
        *middle,
        f"{derived['share_of_peak']:.0%}",
        f"{derived['cpu_ms_per_audio_s']:.1f}",
        f"{derived['padding']:.2f}",
        shown,
    )


def _derived(side: Side, peaks: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds per second tell how much of the machine a contestant got and used."""
    return {
        "audio_s_per_s": side.rate,
        "share_of_peak": side.rate * side.gflop_per_audio_s / peaks[side.dtype],
        "padding": sum(one.padding for one in side.passes) / len(side.passes),
        "cpu_ms_per_audio_s": 1000
        * sum(one.cpu_seconds for one in side.passes)
        / sum(one.audio_s for one in side.passes),
        "cpu_seconds_per_second": sum(one.cpu_seconds for one in side.passes)
        / sum(one.seconds for one in side.passes),
    }
