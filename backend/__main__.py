"""python -m backend COMMAND: everything that an operator does with the backend."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend import settings as settings_module
from backend.cli import people, quickstart
from backend.settings import Settings, SettingsError

EPILOG = """\
examples
  Label Studio and the backend on this machine, with your recordings:
    python -m backend run --audio recordings --labels anger,joy,neutral

  the two processes of a service (settings: environment variables AFTER_..., or .env):
    python -m backend serve
    python -m backend worker

  put project 7 of a Label Studio that is there already in the model's order:
    python -m backend connect --url http://label-studio.example.org --project 7
    python -m backend doctor --project 7

  cut what is longer than AFTER_MAX_AUDIO_S at pauses, into tasks of their own:
    python -m backend cut 7

  see how it goes; go back to an older model; stop what is being done:
    python -m backend status 7
    python -m backend rollback 7 after-r03-n0060
    python -m backend cancel 7

  keep a copy of everything that can't be computed again, or go back to one:
    python -m backend backup after-backup.tar.gz
    python -m backend restore after-backup.tar.gz

  the model for other programs (transformers, ONNX), and the labels as tables:
    python -m backend export 7 --to call-centre

  what the model says of every recording, as a table or beside the order in Label Studio:
    python -m backend predictions 7 --csv predictions.csv
    python -m backend predictions 7 --push
"""
KEY_HELP = (
    "a personal access token or a legacy token of Label Studio (Account & Settings); better given "
    "as LABEL_STUDIO_API_KEY or typed when asked, since other users can see a command's arguments"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0, or 1 with one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        settings = settings_module.load()
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
        if settings.log_level != "debug":
            logging.getLogger("httpx").setLevel("WARNING")  # a line for every request
        return options.run(settings, options) or 0
    except KeyboardInterrupt:
        return 130
    except (SettingsError, LookupError, ValueError, RuntimeError, OSError) as error:
        # Every error that a user can do something about is one of these; its message says what.
        logging.getLogger("after").debug("failed", exc_info=True)
        print(f"error: {_sentence(error)}", file=sys.stderr)
        return 1


# --- commands ------------------------------------------------------------------------------------


def _serve(settings: Settings, _options: argparse.Namespace) -> None:
    from backend.web.serving import serve

    serve(settings)


def _worker(settings: Settings, options: argparse.Namespace) -> int:
    if options.check:
        from backend.worker import health

        problem = health.problem(settings)
        print(problem or "the worker is well")
        return 1 if problem else 0
    from backend.worker.process import run_worker

    run_worker(settings)
    return 0


def _run(settings: Settings, options: argparse.Namespace) -> int:
    return quickstart.run(settings, options)


def _connect(settings: Settings, options: argparse.Namespace) -> int:
    url = options.url or settings.label_studio_url
    if not url:
        raise SettingsError("--url is missing: Label Studio's address, or set LABEL_STUDIO_URL")
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"--url {url}: write http://host:port")
    key = _api_key(settings, options)
    from backend.label_studio import connect

    wishes = people.wishes(options)
    connected = connect.connect(
        settings, url.rstrip("/"), key, options.project, options.backend_url, wishes
    )
    print(connected)
    if options.cut:
        return _cut(settings, options)
    print(
        f"recordings of more than {settings.max_audio_s:g} s are left out; "
        f"python -m backend cut {options.project} makes utterances of them"
    )
    return 0


def _cut(settings: Settings, options: argparse.Namespace) -> int:
    from backend.cli import cut

    report = cut.run(settings, options.project)
    for reason in report.wrong:
        print(f"left out: {reason}", file=sys.stderr)
    print(f"project {options.project}: {report}")
    return 1 if report.wrong else 0


def _doctor(settings: Settings, options: argparse.Namespace) -> int:
    from backend.cli import doctor

    return doctor.main(settings, options.project)


def _status(settings: Settings, options: argparse.Namespace) -> None:
    from backend.store.projects import UnknownProject
    from backend.web.status import status

    now = status(settings)
    if options.project is not None:
        now["projects"] = [p for p in now["projects"] if p["id"] == options.project]
        if not now["projects"]:
            raise UnknownProject(options.project)
    print(json.dumps(now, indent=2) if options.json else status_text(now))


def _rollback(settings: Settings, options: argparse.Namespace) -> None:
    from backend.worker import queueing

    print(queueing.request_rollback(settings, options.project, options.version))


def _cancel(settings: Settings, options: argparse.Namespace) -> None:
    from backend.worker import queueing

    print(queueing.cancel(settings, options.project))


def _pause(settings: Settings, options: argparse.Namespace) -> None:
    from backend.store.projects import Projects

    Projects(settings).change(options.project, paused=True)
    print(
        f"project {options.project} is paused: labels are counted and no job begins; what runs "
        "goes on to its end (python -m backend cancel stops it)"
    )


def _resume(settings: Settings, options: argparse.Namespace) -> None:
    from backend.store.projects import Projects

    Projects(settings).change(options.project, paused=False)
    print(f"project {options.project} goes on")


def _backup(settings: Settings, options: argparse.Namespace) -> None:
    from backend.store import backup

    contents = [name for name in backup.OPTIONAL if getattr(options, name)]
    size = backup.backup(settings, options.file, contents)
    print(f"{options.file}: {size / 2**20:.1f} MiB; it holds access tokens, keep it safe")


def _restore(settings: Settings, options: argparse.Namespace) -> None:
    from backend.store import backup

    count = backup.restore(settings, options.file, options.force)
    print(
        f"{count} projects restored into {settings.data}; start `serve` and `worker`, and run "
        "`python -m backend doctor`"
    )


def _export(settings: Settings, options: argparse.Namespace) -> None:
    from backend.cli import export

    print(export.run(settings, options.project, options.to, audio=options.audio, onnx=options.onnx))


def _predictions(settings: Settings, options: argparse.Namespace) -> None:
    from backend.cli import predictions

    said = predictions.run(
        settings, options.project, push=options.push, csv_file=options.csv, json_file=options.json
    )
    print(said, file=sys.stderr)  # standard output may be what is written


def _disconnect(settings: Settings, options: argparse.Namespace) -> None:
    from backend.label_studio import connect

    print(connect.disconnect(settings, options.project))


# --- what they print -----------------------------------------------------------------------------


def status_text(now: dict[str, Any]) -> str:
    """The status for a terminal: a paragraph a project."""
    lines = [
        "worker: alive" if now["worker_alive"] else "worker: NOT RUNNING (python -m backend worker)"
    ]
    if not now["projects"]:
        lines.append("Nothing connected yet: run python -m backend connect --url ... --project ...")
    for project in now["projects"]:
        lines += ["", *_project_lines(project)]
    return "\n".join(lines)


def _quality_line(one: dict[str, Any]) -> str:
    if one["ua"] is None:
        return f"   quality   {one['missing']} more random labels until it can be told"
    ua = "{value:.0%} ({low:.0%} to {high:.0%})".format(**one["ua"])
    return f"   quality   UA {ua} on {one['rest']} unlabelled recordings, {one['audits']} audits"


def _project_lines(project: dict[str, Any]) -> list[str]:
    lines = [
        f"{project['id']}  {project['title']}  {project['label_studio']}",
        f"   labels    {project['labels']} of {project['budget']} "
        f"({project['budget_share']:.0%} of {project['tasks']} recordings)",
        f"   serves    {project['serving'] or 'nothing yet'}",
        f"   now       {_doing(project)}",
    ]
    if project["order_ran_out"]:
        lines.append("   order     run out: tasks are served at random until a worker sends more")
    lines += [_quality_line(one) for one in project["quality"]]
    lines.append(f"   speakers  {_speakers(project['speakers'])}")
    lines.append(f"   guess     {'shown' if project['shows_guess'] else 'hidden'} while labeling")
    if project["advice"]:
        word = "stop" if project["advice"]["stop"] else "go on"
        lines.append(f"   advice    {word}: {project['advice']['reason']}")
    if project["too_long"]:
        lines.append(
            f"   too long  {project['too_long']} recordings; python -m backend cut {project['id']} "
            "makes utterances of them"
        )
    if project["skipped_count"]:
        lines.append(
            f"   skipped   {project['skipped_count']} clips, for example task "
            f"{project['skipped'][0]['task']}: {project['skipped'][0]['reason']}"
        )
    lines += [f"   problem   {problem}" for problem in project["problems"]]
    if project["errors"]:
        error = project["errors"][0]
        lines.append(
            f"   error     {error.get('time')} {error.get('where')}: {error.get('message')}"
        )
    return lines


def _speakers(speakers: dict[str, Any] | None) -> str:
    if speakers is None:
        return "not known"
    said = f"{speakers['count']}, in {speakers['recordings']} recordings"
    if speakers["helps"] is None:
        return said
    return f"{said}; taking their means off {'helps' if speakers['helps'] else 'does not help'}"


def _doing(project: dict[str, Any]) -> str:
    from backend.web.status import duration

    running = project["running"]
    if running is None:
        if project["queued"]:
            return f"{project['queued'][0]['job']} waits for the worker"
        following = project["next_round"]
        return (
            "idle"
            if following is None
            else f"idle; {following['missing']} labels to the next round"
        )
    left = "" if running["left_s"] is None else f", about {duration(running['left_s'])} left"
    return f"{running['job']}: {running['stage']} {running['share']:.0%}{left}"


# --- arguments -----------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="AFTER for Label Studio: people label, the model says what comes next.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Any, description: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=description, description=f"{description[0].upper()}{description[1:]}."
        )
        command.set_defaults(run=run)
        return command

    add("serve", _serve, "answer Label Studio and show the status page")
    command = add("worker", _worker, "do the jobs: read audio, train, score, put projects in order")
    command.add_argument(
        "--check", action="store_true", help="say whether this machine's worker is well; start none"
    )
    command = add("run", _run, "start Label Studio and the backend here, with a folder of audio")
    quickstart.add_arguments(command)

    command = add("connect", _connect, "put a project of Label Studio in the model's order")
    command.add_argument("--url", help="Label Studio's address as this machine sees it")
    command.add_argument("--api-key", help=KEY_HELP)
    command.add_argument("--project", type=_number, required=True, metavar="ID")
    command.add_argument(
        "--backend-url", help="this backend's address as Label Studio sees it (AFTER_URL)"
    )
    people.add_arguments(command)
    command.add_argument(
        "--cut", action="store_true", help="and do what `python -m backend cut` does"
    )

    command = add("cut", _cut, "make utterances of recordings above the length limit, each a task")
    command.add_argument("project", type=_number, metavar="PROJECT")

    command = add("doctor", _doctor, "test everything that has to be right, and say what isn't")
    command.add_argument("--project", type=_number, metavar="ID")

    command = add("status", _status, "say how it goes")
    command.add_argument("project", type=_number, nargs="?", metavar="PROJECT")
    command.add_argument("--json", action="store_true", help="for other programs")

    command = add("rollback", _rollback, "let an older version serve again")
    command.add_argument("project", type=_number, metavar="PROJECT")
    command.add_argument("version", metavar="VERSION", help="as `status` names it")

    command = add("cancel", _cancel, "stop what a project does now; what serves goes on serving")
    command.add_argument("project", type=_number, metavar="PROJECT")

    command = add("pause", _pause, "begin no job of a project until it is resumed")
    command.add_argument("project", type=_number, metavar="PROJECT")

    command = add("resume", _resume, "let a paused project go on")
    command.add_argument("project", type=_number, metavar="PROJECT")

    command = add("backup", _backup, "write everything but audio and features into one file")
    command.add_argument("file", type=Path, metavar="FILE", help="such as after-backup.tar.gz")
    command.add_argument("--audio", action="store_true", help="the fetched recordings, too")
    command.add_argument("--features", action="store_true", help="features, too")

    command = add("restore", _restore, "have the state of a backup; stop serve and worker first")
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--force", action="store_true", help="replace the state that there is")

    command = add("export", _export, "write the model that serves and what people said to a folder")
    command.add_argument("project", type=_number, metavar="PROJECT")
    command.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="new or empty")
    command.add_argument(
        "--audio", action="store_true", help="copy the labelled recordings, too, into audio/"
    )
    command.add_argument(
        "--no-onnx", dest="onnx", action="store_false",
        help="leave model.onnx out (it needs requirements-export.txt)",
    )  # fmt: skip

    command = add("predictions", _predictions, "send or write what the model says of every task")
    command.add_argument("project", type=_number, metavar="PROJECT")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--push", action="store_true",
        help="store them in Label Studio beside the order; run again, it goes on where it ended",
    )  # fmt: skip
    where.add_argument(
        "--csv", type=Path, metavar="FILE",
        help="a row a recording and question; - is standard output",
    )  # fmt: skip
    where.add_argument(
        "--json", type=Path, metavar="FILE", help="as Label Studio imports predictions, or -"
    )

    command = add("disconnect", _disconnect, "forget a project; its models and labels stay")
    command.add_argument("project", type=_number, metavar="PROJECT")
    return parser


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number < 2**31:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no project id; it is the number in the project's address: /projects/7/"
        )
    return number


def _api_key(settings: Settings, options: argparse.Namespace) -> str:
    """From the arguments, the environment, or whoever sits there; never shown."""
    key = options.api_key or settings.label_studio_api_key.get_secret_value()
    if not key and sys.stdin.isatty():
        key = getpass.getpass("Label Studio's access token (not shown): ").strip()
    if not key:
        raise SettingsError(
            "Label Studio's access token is missing: set LABEL_STUDIO_API_KEY or pass --api-key"
        )
    return key


def _sentence(error: BaseException) -> str:
    """An error's message on one line."""
    text = str(error) if not isinstance(error, KeyError) else str(error.args[0])
    return " ".join(text.split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
