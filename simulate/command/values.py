"""What options are given, read from text, in the words of who typed them where that can't be."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from simulate import data, experiments
from simulate.data import policies


class UsageError(ValueError):
    """An option that can't be followed; the message is for the person who typed it."""


def percentage(text: str) -> float:
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage") from None
    if not 0 < percent <= 100:
        raise argparse.ArgumentTypeError(f"{text}: a percentage above 0 and up to 100")
    return round(percent / 100, 8)


def audit_share(text: str) -> float:
    share = 0.0 if text.strip().removesuffix("%") == "0" else percentage(text)
    if share > 0.5:
        raise argparse.ArgumentTypeError(f"{text}: a percentage from 0 to 50")
    return share


def natural(text: str, least: int = 0) -> int:
    if not text.strip().isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from {least}")
    return int(text)


def positive(text: str) -> int:
    return natural(text, 1)


def step_size(text: str) -> int | str:
    return text if text in ("classes", "round") else positive(text)


def states(text: str) -> tuple[int, ...] | str:
    if text in ("last", "all"):
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: numbers such as 2,3, or last, or all"
        ) from None


def experiment(text: str) -> str:
    try:
        return experiments.get(text).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def corpus(text: str) -> str:
    try:
        data.members(text)
    except data.CorpusError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def policy(text: str) -> str:
    """A label policy's name; which raters there are the corpus knows."""
    named = text.startswith(policies.RATER) and len(text) > len(policies.RATER)
    if not named and text not in (policies.names()[:-1]):
        known = ", ".join(policies.names())
        raise argparse.ArgumentTypeError(f"no policy {text!r}; there are {known}")
    return text


def pair(text: str) -> tuple[str, str]:
    """`modality=face` -> ("modality", "face")."""
    key, sign, value = (part.strip() for part in text.partition("="))
    if not (key and sign):
        raise argparse.ArgumentTypeError(f"{text!r}: write KEY=VALUE, such as modality=face")
    return key, value


def path(text: str) -> Path:
    return Path(text).expanduser()


def default_workers() -> int:
    """A worker per core, up to four: each holds a model."""
    return min(4, len(os.sched_getaffinity(0)))
