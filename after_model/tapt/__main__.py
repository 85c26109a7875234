"""`python -m after_model.tapt`: adapt a backbone to a folder of audio from the command line."""

from __future__ import annotations

import argparse
import dataclasses
import fnmatch
import json
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import torch

from after_model import audio, backbone, tapt
from after_model.audio import Utterance
from after_model.device import cores
from after_model.features import FeatureStore
from after_model.progress import bar, silent

EPILOG = """\
Every field of TaptConfig is an option; `pydoc after_model.tapt.config.TaptConfig` explains them.

  python -m after_model adapt --audio recordings --out adapted
  python -m after_model adapt --audio wav --out adapted --hold-out '15*' '16*' --epochs 3

Several GPUs of one machine (batch_seconds is per GPU), and two CPU processes:

  torchrun --nproc_per_node=4 -m after_model adapt --audio wav --out adapted \\
      --backbone facebook/wav2vec2-base --max-steps 20000 --batch-seconds 180
  torchrun --nproc_per_node=2 -m after_model adapt --audio wav --out adapted --device cpu

A run that was killed goes on when the same command is given again, without the recordings that have
gone meanwhile. torchrun gives each process a card of its own; CUDA_VISIBLE_DEVICES says which.
"""


def main(
    arguments: Sequence[str] | None = None, program: str = "python -m after_model.tapt"
) -> int:
    """Run the command; 0 when the adapted backbone is in --out. program: what help calls it."""
    options = _parser(program).parse_args(arguments)
    first = int(os.environ.get("RANK", "0")) == 0  # torchrun tells each process its rank
    try:
        config = tapt.TaptConfig(
            **{f.name: getattr(options, f.name) for f in dataclasses.fields(tapt.TaptConfig)}
        )
        train, held_out = _pool(options.audio, options.hold_out)
        model = backbone.load(options.backbone)
        store = FeatureStore(
            options.store or options.out / "features", model, workers=_encoding_workers()
        )
        if first:
            print(
                f"Adapting {model.name} to {len(train)} recordings of {options.audio}"
                + (f", {len(held_out)} held out" if held_out else "")
            )
        report = tapt.adapt(
            model,
            train,
            store,
            options.out,
            config,
            held_out=held_out,
            restart=options.restart,
            progress=bar() if first and sys.stderr.isatty() else silent,
            device=options.device,
        )
    except (tapt.TaptError, tapt.TaptCollapse, backbone.BackboneError, audio.AudioError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if first:
        _show(report)
    return 0


def _encoding_workers() -> int | None:
    """Threads with which a process encodes; None for as many as torch uses.

    torchrun tells each process to use one; those of a machine share its cores.
    """
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    return max(1, cores() // int(processes)) if processes else None


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Task-adaptive pre-training of a speech backbone on unlabelled audio.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--audio", type=Path, required=True, help="folder of recordings")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapted backbone")
    parser.add_argument("--backbone", default=backbone.DEFAULT, help="hub name or folder")
    parser.add_argument("--store", type=Path, help="feature cache (default: OUT/features)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    parser.add_argument("--restart", action="store_true", help="begin anew, whatever --out holds")
    parser.add_argument(
        "--hold-out",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="recordings to measure on, not train on: patterns of paths within --audio",
    )
    settings = parser.add_argument_group("settings of the adaptation")
    hints = typing.get_type_hints(tapt.TaptConfig)
    for field in dataclasses.fields(tapt.TaptConfig):
        kind = next(t for t in (typing.get_args(hints[field.name]) or (hints[field.name],)))
        flag = f"--{field.name.replace('_', '-')}"
        note = f"(default: {'automatic' if field.default is None else field.default})"
        if kind is bool:
            settings.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=field.default, help=note
            )
        else:
            settings.add_argument(flag, type=kind, default=field.default, metavar="", help=note)
    return parser


def _pool(folder: Path, patterns: Sequence[str]) -> tuple[list[Utterance], list[Utterance]]:
    """Recordings below a folder: those to train on and those whose paths match a pattern."""
    if not folder.is_dir():
        raise tapt.TaptError(f"--audio {folder}: no such folder")
    train: list[Utterance] = []
    held_out: list[Utterance] = []
    for path in audio.below(folder):
        name = path.relative_to(folder).as_posix()
        matches = any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        (held_out if matches else train).append(Utterance(name, path))
    if not train:
        raise tapt.TaptError(
            f"--audio {folder}: no recording to train on; "
            f"looked for {', '.join(sorted(audio.EXTENSIONS))}"
        )
    if patterns and not held_out:
        raise tapt.TaptError(f"--hold-out {' '.join(patterns)}: no recording of {folder} matches")
    return train, held_out


def _show(report: tapt.TaptReport) -> None:
    """The course of the training in a few lines, the held-out accuracy, where the result is."""
    lines = (report.folder / "tapt_log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    names = ["step", "loss", "contrastive", "reconstruction", "diversity", "perplexity",
             "masked_share", "grad_norm", "audio_s_per_s"]  # fmt: skip
    names = [name for name in names if name in records[0]]
    print("  ".join(f"{name:>13}" for name in names))
    for i in sorted({round(k * (len(records) - 1) / 7) for k in range(8)}):
        print("  ".join(f"{records[i][name]:>13.4g}" for name in names))
    for when, found in (("before", report.before), ("after", report.after)):
        if found:
            print(
                f"held out, {when}: accuracy {found.accuracy:.3f} (chance {found.chance:.3f}, "
                f"ceiling {found.ceiling:.3f}), perplexity {found.perplexity:.1f}, "
                f"{found.positions} masked frames"
            )
    if report.before and report.fresh_heads:
        print("(the heads started anew, so before is chance whatever the backbone)")
    for reason in report.skipped:
        print(f"skipped {reason}")
    print(
        f"{report.steps} steps, {report.audio_seconds / 60:.0f} min of audio in "
        f"{report.seconds:.0f} s ({report.precision}). Adapted backbone: {report.folder}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
