"""What `connect` and `run` are told of people: who speaks, and what those who label see."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from backend.label_studio import speakers

if TYPE_CHECKING:
    from backend.label_studio.connect import Wishes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that both commands have; what isn't given stays as it is."""
    parser.add_argument(
        "--speaker", default="", metavar="KEY", help="field of the tasks' data that says who speaks"
    )
    parser.add_argument(
        "--speaker-pattern",
        default="",
        metavar="REGEX",
        help="who speaks, by the recording's file name with its folders: what the groups take; "
        f"'{speakers.NOBODY}': don't use it",
    )
    parser.add_argument(
        "--show-guess",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether people see the model's choice before they have answered (AFTER_SHOW_GUESS)",
    )


def wishes(options: argparse.Namespace, use_speakers: bool = False) -> Wishes:
    """What the options say; use_speakers: use what is found too. Raises SpeakerError."""
    from backend.label_studio.connect import Wishes

    return Wishes(
        speaker=speakers.rule(options.speaker, options.speaker_pattern),
        use_speakers=use_speakers,
        show_guess=options.show_guess,
    )
