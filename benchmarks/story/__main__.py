"""`python -m benchmarks.story`: the whole story on recordings whose labels are known."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from backend.label_studio.predictions import LabelStudioError
from backend.settings import Settings, SettingsError
from benchmarks import report
from benchmarks.story import outcome, truth
from benchmarks.story.alike import Alike
from benchmarks.story.annotator import Annotator, Served, orders, waits
from benchmarks.story.errors import StoryError
from benchmarks.story.outcome import Outcome, Quality, quality
from benchmarks.story.services import Services
from benchmarks.story.telling import Teller

DESCRIPTION = """\
Starts what `make run AUDIO=folder` starts and labels, with an oracle instead of people, what Label
Studio serves, in its order and without waiting for the model. Then compares the serving model on
the rest with the same learner on as many labels of recordings chosen at random.
"""
EPILOG = """\
examples:
  python -m benchmarks.story --audio EmoDB/wav
  python -m benchmarks.story --audio EmoDB/wav --wait --json results/story.json
  AFTER_ROUND_SIZE=10 python -m benchmarks.story --audio clips --labels clips.csv --budget 10

The backend's settings (AFTER_..., .env) hold for both sides. Label Studio is installed by
`make label-studio`.
"""
TOLD_EVERY = 20  # labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the story was told to its end."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="after-story-") as folder:
            data = options.data.expanduser().resolve() if options.data else Path(folder)
            result = _tell(options, data, Path(folder) / "alike")
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (StoryError, SettingsError, LabelStudioError, ValidationError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print()
    outcome.show(result, report.new_console())
    if options.json:
        outcome.write(options.json, result)
        print(f"\nwritten: {options.json}")
    if options.data:
        print(f"\nkept: {data}")
    return 0


def _tell(options: argparse.Namespace, data: Path, apart: Path) -> Outcome:
    teller = Teller()
    audio = options.audio.expanduser().resolve()
    labels = truth.read(audio, options.labels)
    classes = truth.names(labels)
    budget = truth.share(labels, options.budget)
    settings = Settings(data=data)
    settings.learner_config()  # an unknown name is found now, not after labelling
    teller.say(f"{len(labels)} recordings of {', '.join(classes)}; {budget} labels")
    with teller.part("in all"):
        with Services(data, audio, classes, options.label_studio_venv.absolute(), teller) as live:
            with teller.part("starting"):
                live.start()
            paths, answers = _tasks(live, labels)
            served, failures = _label(options, live, answers, budget)
            with teller.part("asking"):
                version = live.status()["serving"]
                rest = [task for task in live.tasks() if not task.is_labeled]
                predicted = live.predictions(rest)
        chosen = sorted(answers.keys() - {task.id for task in rest})
        with teller.part("fitting apart"):
            alike = Alike(paths, answers, classes, apart, settings, teller)
            same, random = _fit(alike, chosen, options.choices, teller)
    return Outcome(
        recordings=len(labels),
        labels=len(chosen),
        unordered=sum(not one.version for one in served),
        version=version,
        serving=quality([answers[task] for task in predicted], list(predicted.values())),
        alike=same,
        random=random,
        orders=orders(served),
        waits_s=waits(served),
        failures=failures,
        unread=len(rest) - len(predicted),
        minutes={name: seconds / 60 for name, seconds in teller.seconds.items()},
    )


def _tasks(live: Services, labels: Mapping[str, str]) -> tuple[dict[int, Path], dict[int, str]]:
    """Audio and right label by task; raises StoryError where somebody has labelled already."""
    tasks = live.tasks()
    if any(task.is_labeled for task in tasks):
        raise StoryError(f"{live.data}: its recordings have labels; name another folder, or none")
    recording_of = {task.id: truth.recording(task.data) for task in tasks}
    paths = {task: live.audio / recording for task, recording in recording_of.items()}
    return paths, {task: labels[recording] for task, recording in recording_of.items()}


def _label(
    options: argparse.Namespace, live: Services, answers: Mapping[int, str], budget: int
) -> tuple[list[Served], int]:
    """Label what is served, up to the budget, and let everything be learnt: (what, failures)."""
    teller = live.teller

    def tell(served: list[Served]) -> None:
        order = served[-1].version or "no order yet"
        text = f"{len(served)} of {budget} labels, {order}"
        before = served[-2].version if len(served) > 1 else None
        if order != (before or "no order yet") or len(served) % TOLD_EVERY == 0:
            teller.say(text)

    if options.wait:
        with teller.part("waiting for the first order"):
            live.wait_for_order()
    with Annotator(live.label_studio_url, live.token, live.project, answers) as annotator:
        try:
            with teller.part("labelling"):
                served = annotator.label(budget, options.seconds_per_label, tell)
        except StoryError:
            live.check()  # its reason is the better one
            raise
        teller.say(f"{len(served)} labels given; waiting for what they began")
        with teller.part("last rounds"):
            live.wait_for_rounds(len(served))
            if live.learnt() < len(served):  # too few since the last round for another
                teller.say('pressing "Start Training", so that the model knows every label')
                annotator.press_train()
                live.wait_for_model(len(served))
        return served, annotator.failures


def _fit(
    alike: Alike, chosen: Sequence[int], choices: int, teller: Teller
) -> tuple[Quality, list[Quality]]:
    """The learner of this process on the labels that were given, and on random choices."""
    teller.say("fitting the same learner in this process ...")
    same = alike.of(chosen)
    teller.say(f"the labels that were served: UA {same.ua:.3f}")
    random = []
    for number, one in enumerate(alike.at_random(len(chosen), choices), 1):
        random.append(one)
        teller.say(f"random choice {number} of {choices}: UA {one.ua:.3f}")
    return same, random


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.story",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--audio", type=Path, required=True, metavar="DIR", help="recordings whose labels are known"
    )
    words = "columns path (relative to DIR) and label (default: from EmoDB's file names)"
    add("--labels", type=Path, metavar="CSV", help=words)
    words = "per cent of the recordings that are labelled (default: 20)"
    add("--budget", type=_percent, default=20.0, metavar="N", help=words)
    add("--seconds-per-label", type=float, default=1.2, metavar="N", help="(default: 1.2)")
    add("--wait", action="store_true", help="begin to label once there is an order")
    add("--choices", type=int, default=5, metavar="N", help="random choices (default: 5)")
    add("--data", type=Path, metavar="DIR", help="a new folder that is kept (default: none is)")
    words = "the virtual environment that has Label Studio (default: %(default)s)"
    venv = os.environ.get("AFTER_LABEL_STUDIO_VENV") or ".venv-label-studio"
    add("--label-studio-venv", type=Path, default=Path(venv), metavar="DIR", help=words)
    add("--json", type=Path, metavar="FILE", help="write the numbers to a file, too")
    return parser


def _percent(text: str) -> float:
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text}: a share in per cent, above 0 and up to 100")
    return value


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
