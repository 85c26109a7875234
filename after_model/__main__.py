"""python -m after_model COMMAND: the method without Label Studio."""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from after_model.audio import DEFAULT_LIMITS, AudioError, AudioLimits

if TYPE_CHECKING:  # torch takes seconds, and --help needs none
    from after_model.predicting import Prediction

EPILOG = """\
examples
  the emotion of every recording below a folder, as a table:
    python -m after_model predict exported recordings > emotions.csv

  the model that a learner (here of ActiveLearner, folder "run") made last, for other programs:
    python -m after_model export run --to exported

  recordings of half an hour as utterances, cut at pauses, with a table of where each is from:
    python -m after_model cut interviews --to utterances

  pre-train a backbone on a folder of audio, without labels:
    python -m after_model adapt --audio recordings --out adapted
"""
UNREADABLE = 3
DIGITS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, 1 with a sentence on standard error, 3 where a recording is unreadable."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["adapt"]:
        from after_model.tapt import __main__ as adapting

        return adapting.main(given[1:], "python -m after_model adapt")
    options = _parser().parse_args(given)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, RuntimeError, OSError) as error:
        # Every error that a user can do something about is one of these; its message says what.
        print(f"error: {error}", file=sys.stderr)
        return 1


# --- commands ------------------------------------------------------------------------------------


def _predict(options: argparse.Namespace) -> int:
    from after_model import predicting
    from after_model.progress import bar, silent

    paths = predicting.find(options.files)
    classifier, labels = predicting.load(options.model)
    found = predicting.predict(
        classifier,
        paths,
        limits=AudioLimits(max_duration_s=options.max_seconds),
        device=options.device,
        progress=bar() if sys.stderr.isatty() else silent,
    )
    write = _write_csv if options.format == "csv" else _write_json
    with _output(options.out) as out:
        lost = write(out, found, labels.names)
    for error in lost:
        print(f"skipped {error}", file=sys.stderr)
    print(f"{len(paths) - len(lost)} of {len(paths)} recordings", file=sys.stderr)
    return UNREADABLE if lost else 0


def _export(options: argparse.Namespace) -> int:
    from after_model.export import Licence, export

    licence = Licence("other", options.licence) if options.licence else None
    done = export(options.model, options.to, licence=licence, onnx=options.onnx)
    print(f"{done.folder}: {', '.join(done.files)}")
    print(f"transformers reads it as {done.reader}; how, says {done.folder / 'README.md'}")
    return 0


def _cut(options: argparse.Namespace) -> int:
    from after_model.progress import bar, silent
    from after_model.segments import CutConfig, cut_folder

    config = CutConfig(options.longer_than, options.longest, options.pause)
    options.to.mkdir(parents=True, exist_ok=True)
    show = bar() if sys.stderr.isatty() else silent
    made, sources, lost = 0, set(), []
    with (options.to / "segments.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "source", "start_s", "end_s"])
        for cut in cut_folder(options.folder, options.to, config, show):
            if cut.error is not None:
                lost.append(cut.error)
            elif cut.segment is not None:
                start, end = (f"{s:.3f}" for s in (cut.segment.start_s, cut.segment.end_s))
                table.writerow([cut.path.relative_to(options.to), cut.source, start, end])
                made += 1
                sources.add(cut.source)
    for error in lost:
        print(f"skipped {error}", file=sys.stderr)
    print(f"{made} segments of {len(sources)} recordings: {options.to / 'segments.csv'}")
    return UNREADABLE if lost else 0


def _write_csv(out: TextIO, found: Iterator[Prediction], names: Sequence[str]) -> list[AudioError]:
    """file, emotion, a probability a class (one that is called like a column says so).

    Row by row; returns the errors of what can't be read.
    """
    columns = [f"{n} (probability)" if n in ("file", "emotion") else n for n in names]
    rows, lost = csv.writer(out), []
    rows.writerow(["file", "emotion", *columns])
    for each in found:
        if each.probs is not None:
            likely = [f"{p:.{DIGITS}f}" for p in each.probs]
            rows.writerow([each.path, names[int(each.probs.argmax())], *likely])
        elif each.error is not None:
            lost.append(each.error)
    return lost


def _write_json(out: TextIO, found: Iterator[Prediction], names: Sequence[str]) -> list[AudioError]:
    """{"predictions": [{file, emotion, probabilities}], "unreadable": [{file, reason, fix}]}."""
    predictions, lost = [], []
    for each in found:
        if each.probs is not None:
            likely = {n: round(float(p), DIGITS) for n, p in zip(names, each.probs, strict=True)}
            best = names[int(each.probs.argmax())]
            predictions.append({"file": str(each.path), "emotion": best, "probabilities": likely})
        elif each.error is not None:
            lost.append(each.error)
    unreadable = [{"file": str(e.path), "reason": e.reason, "fix": e.fix} for e in lost]
    told = {"predictions": predictions, "unreadable": unreadable}
    json.dump(told, out, indent=1, ensure_ascii=False)
    out.write("\n")
    return lost


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", newline="", encoding="utf-8") as file:
        yield file


# --- arguments -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m after_model",
        description="Speech emotion recognition: predict, pass a model on, adapt a backbone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    where = (
        "a learner's folder, its models folder, a version in it, or what `export` wrote; of "
        "several versions the one that serves"
    )

    command = commands.add_parser(
        "predict",
        help="say the emotion of recordings, as CSV or JSON",
        description="Say the emotion of recordings. Those that can't be read are reported on "
        "standard error and left out; the exit status is then 3.",
    )
    command.set_defaults(run=_predict)
    command.add_argument("model", type=Path, metavar="MODEL", help=where)
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="recordings, folders of them, or quoted patterns"
    )
    command.add_argument("--format", choices=("csv", "json"), default="csv", help="default: csv")
    command.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    command.add_argument(
        "--max-seconds",
        type=float,
        default=DEFAULT_LIMITS.max_duration_s,
        metavar="S",
        help="longer recordings are left out (default: %(default)g)",
    )

    command = commands.add_parser(
        "export",
        help="write a model for transformers, ONNX Runtime and after_model, with its card",
        description="Write a model as a folder that transformers and after_model read, ONNX and a "
        "model card beside. The card (README.md) says how each loads it.",
    )
    command.set_defaults(run=_export)
    command.add_argument("model", type=Path, metavar="MODEL", help=where)
    command.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="new or empty")
    command.add_argument(
        "--no-onnx", dest="onnx", action="store_false",
        help="leave model.onnx out (it needs requirements-export.txt)",
    )  # fmt: skip
    command.add_argument(
        "--licence", metavar="TEXT", help="a sentence on the encoder's, if it is not embedded"
    )
    command = commands.add_parser(
        "cut",
        help="cut long recordings into utterances at pauses",
        description="Cut long recordings into utterances at pauses: FLAC files (mono, 16 kHz) and "
        "segments.csv, which says of each where it is from. Shorter recordings are left alone.",
    )
    command.set_defaults(run=_cut)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="recordings, at any depth")
    command.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    for name, default, help_ in (
        ("--longer-than", 30.0, "what is cut"),
        ("--longest", 15.0, "of a segment; speech without a pause is cut there"),
        ("--pause", 0.5, "silence that separates segments"),
    ):
        command.add_argument(
            name, type=float, default=default, metavar="S",
            help=f"{help_} (default: %(default)g)",
        )  # fmt: skip
    commands.add_parser(
        "adapt",
        add_help=False,
        help="pre-train a backbone on a folder of audio (adapt --help)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
