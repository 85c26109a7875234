"""`python -m benchmarks`: how fast AFTER is beside transformers' own tools on this machine."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from after_model.audio import AudioError
from after_model.backbone import DEFAULT, BackboneError
from benchmarks import report
from benchmarks.apart import Apart
from benchmarks.machine import Machine
from benchmarks.pool import recordings
from benchmarks.settings import OutputsDiffer, Row, Settings, TooLittleAudio
from benchmarks.weights import Preparation

TASKS = ("scoring", "finetuning", "tapt")
APART = ("steps", "memory", "layers", "competition")
"""Commands of their own, with options of their own."""
DESCRIPTION = """\
Measures AFTER beside what a user would really take: the same weights, recordings, machine and run.
Outputs have to be equal to 1e-4; whatever computes something else is called inexact.

  scoring     a pool's probabilities, against transformers alone, in processes, compiled, as a
              pipeline, and against ONNX Runtime and OpenVINO (requirements-bench.txt)
  finetuning  an epoch, against the Trainer as its audio-classification example sets it up
  tapt        pre-training steps, against Wav2Vec2ForPreTraining as in its pre-training example
"""
EPILOG = """\
examples:
  python -m benchmarks                          everything, 10 minutes of audio
  python -m benchmarks scoring --seconds 0      scoring on all the recordings there are
  python -m benchmarks --backbone base --seconds 40 --repeats 1
                                                random weights of wav2vec2-base's size, on a CPU
  python -m benchmarks tapt --device cuda --backbone facebook/wav2vec2-base --seconds 3600
  python -m benchmarks --audio recordings --json results/speed.json

Measure on a machine that does nothing else.

more, each with --help:
  python -m benchmarks steps                    what a step takes, pools of 440 to 1,000,000
  python -m benchmarks memory                   peak memory of training and embedding on EmoDB
  python -m benchmarks layers --backbone DIR    time by the highest hidden state that is pooled
  python -m benchmarks competition --emodb DIR  what fine_tuning="competes" trains, beside the probe
  python -m benchmarks.story --audio DIR        label through Label Studio, beside random order
  python -m benchmarks.webhooks                 how fast events are acknowledged
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when everything was measured and equal."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in APART:
        return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])
    options = _parser().parse_args(arguments)
    console = report.new_console()
    try:
        _measure(options, console)
    except (OutputsDiffer, TooLittleAudio, AudioError, BackboneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _measure(options: argparse.Namespace, console: Console) -> None:
    started = time.monotonic()
    paths = recordings(options.audio, options.seconds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            weights=Path(folder),
            recordings=paths,
            device=options.device,
            threads=options.threads,
            repeats=options.repeats,
            batch_size=options.batch_size,
            batch_seconds=options.batch_seconds,
        )
        with Apart(Preparation, settings, options.backbone) as preparation:
            made = preparation("write")
        with Apart(Machine, settings) as machine:
            about = machine("description")
            dtypes = ("fp32", machine("precision"))
            peaks = {dtype: machine("peak_gflops", dtype) for dtype in dict.fromkeys(dtypes)}
        about |= {"backbone": f"{made['backbone']}, {made['parameters'] / 1e6:.1f} M parameters"}
        about |= {"states pooled in scoring": str(made["states"])}
        about |= {"recordings": f"{len(paths)} of {paths[0].parent}"}
        for task in options.tasks or TASKS:
            if task == "finetuning" and made["family"] == "whisper":
                console.print("finetuning: left out, the example's Whisper hears 30 s or nothing")
                continue
            if task == "tapt" and made["family"] != "wav2vec2":
                console.print(f"tapt: left out, transformers pre-trains no {made['family']}")
                continue
            console.print(f"{task} ...", style="dim")
            rows += importlib.import_module(f"benchmarks.{task}").compare(settings, Apart)
    console.print()
    report.show(rows, peaks, about, console)
    if options.json:
        report.write(options.json, rows, peaks, about)
        console.print(f"\nwritten: {options.json}")
    console.print(f"\n{time.monotonic() - started:.0f} s in all")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    words = f"{', '.join(TASKS)} (default: all)"
    add("tasks", nargs="*", type=_task, metavar="TASK", help=words)
    add("--audio", type=Path, metavar="DIR", help="recordings (default: EmoDB, else generated)")
    words = "seconds of audio, chosen at random; 0: all (default: 600)"
    add("--seconds", type=float, default=600.0, metavar="N", help=words)
    words = (
        f"{DEFAULT} (default), a folder, a name on the hub; random weights: base (of "
        "wav2vec2-base's size) or a configuration's path (.json)"
    )
    add("--backbone", default=DEFAULT, metavar="NAME", help=words)
    add("--device", default="cpu", help="cpu (default), cuda")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    add("--threads", type=int, default=cores, metavar="N", help="of each (default: all cores)")
    add("--repeats", type=int, default=3, metavar="N", help="timed passes of each (default: 3)")
    words = "recordings a batch in fine-tuning (default: 16)"
    add("--batch-size", type=int, default=Settings.batch_size, metavar="N", help=words)
    words = f"audio a batch in pre-training (default: {Settings.batch_seconds:g})"
    add("--batch-seconds", type=float, default=Settings.batch_seconds, metavar="N", help=words)
    add("--json", type=Path, metavar="FILE", help="write every pass to a file, too")
    return parser


def _task(name: str) -> str:
    if name not in TASKS:
        raise argparse.ArgumentTypeError(f"{name!r}: one of {', '.join(TASKS)}")
    return name


if __name__ == "__main__":
    raise SystemExit(main())
