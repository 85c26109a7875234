"""Who speaks in a task's recording: a field of its data, or a part of its file's name; pure.

    propose(items) looks whether names, folders or data say it, conservatively.

Recordings of one person in one group, several groups: nearly unique names are ids of recordings,
and folders that are called like labels or parts of a corpus are those.
"""

from __future__ import annotations

import base64
import binascii
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.label_studio import segments

NOBODY = "(?!)"  # matches nothing: who speaks is not to be looked for
MIN_KNOWN = 0.95  # of the recordings must say who speaks
MIN_EACH = 3  # recordings of most speakers
MOST = 0.8
MAX_PATTERN = 500  # characters
UPLOAD = re.compile(r"/data/upload/\d+/(?:[0-9a-f]{8}-)?(?P<name>.+)")

KEYS = ("speaker", "speaker_id", "speakerid", "spk", "spk_id", "spkid", "actor", "actor_id")
# The file is last in a path; what stands before it are folders.
NAMES = (
    ("RAVDESS", r"(?:^|/)(?:\d\d-){6}(\d\d)\.\w+$"),
    ("EmoDB", r"(?:^|/)(\d\d)[ab]\d\d[A-Z][a-z]?\.\w+$"),
    ("CREMA-D", r"(?:^|/)(1\d{3})_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}\.\w+$"),
    ("IEMOCAP", r"(?:^|/)(Ses\d\d)[FM]_[^/]*_([FM])\d{3}\.\w+$"),
    ("ShEMO", r"(?:^|/)([FM]\d\d)[A-Z]\d\d\.\w+$"),
    ("ESD", r"(?:^|/)(\d{4})_\d{6}\.\w+$"),
    ("SAVEE", r"(?:^|/)(DC|JE|JK|KL)(?:/|_)(?:a|d|f|h|n|sa|su)\d\d\.\w+$"),
)
WORD = r"(?i:speaker|spkr|spk|sprecher|actor|participant|subject|subj|voice)"
SAID = (
    ("names such as spk01_", rf"(?:^|[/_. -])({WORD}[-_ ]?[A-Za-z]?\d+)(?=[/_. -])"),
    ("folders such as Actor_01", rf"(?:^|/)({WORD}[-_ ]?\w+)/"),
)
FOLDERS = (
    ("folders such as f01", r"(?:^|/)([fFmM]\d{1,3})/[^/]+$"),
    ("folders such as p225", r"(?:^|/)([pP]\d{2,4})/[^/]+$"),
    ("folders such as 0011", r"(?:^|/)(\d{3,5})/(?:[^/]+/)?[^/]+$"),
)
# What may be people or anything else is only told, for somebody to decide.
MAYBE = (
    ("folders", r"([^/]+)/[^/]+$"),
    ("the beginning of names", r"(?:^|/)([A-Za-z]{1,8}\d{1,4}|\d{2,4})[_-][^/]+$"),
)
NO_SPEAKERS = re.compile(
    "anger|angry|fear|fearful|happy|happiness|joy|sad|sadness|neutral|disgust|disgusted|surprised?|"
    "calm|bored|boredom|excited|frustrated|frustration|contempt|positive|negative|other|train|"
    "training|test|testing|dev|valid|validation|val|eval|fold|part|batch|chunk|dis[ck]|cd|wavs?|"
    "audios?|clips?|data|recordings?|sounds?|speech|song|mono|stereo|raw|clean|noisy|day|session|"
    "ses|take|sentence|sent|utterance|utt|week|month|year",
    re.IGNORECASE,
)

Item = tuple[Mapping[str, Any], Any]  # a task's data, and its recording's address


class SpeakerError(ValueError):
    """A key or a pattern that says nothing; the message says what it met."""


@dataclass(frozen=True)
class Rule:
    """How a task says who speaks: under `key` of its data, or by `pattern` in its file's path.

    The pattern is a regular expression with a group or more: what they take, joined by "-", is the
    speaker. Neither: nobody knows.
    """

    key: str = ""
    pattern: str = ""

    def __bool__(self) -> bool:
        """Whether it can name anybody."""
        return bool(self.key or (self.pattern and self.pattern != NOBODY))

    def __str__(self) -> str:
        if not self:
            return "not used"
        return f"{self.key!r} of the tasks' data" if self.key else f"{self.pattern} in file names"

    def option(self) -> str:
        """What gives it on a command line."""
        if self.key:
            return f"--speaker {shlex.quote(self.key)}"
        return f"--speaker-pattern {shlex.quote(self.pattern)}"

    def speaker(self, data: Mapping[str, Any], address: Any) -> str:
        """Who speaks, "" where it isn't said."""
        if self.key:
            value = data.get(self.key)
            plain = isinstance(value, str | int) and not isinstance(value, bool)
            return str(value).strip() if plain else ""
        found = re.search(self.pattern, path_of(address)) if self else None
        return "" if found is None else "-".join(part for part in found.groups() if part)


NOTHING_SAID = Rule()


@dataclass(frozen=True)
class Found:
    """A rule that looks right: by what, and the recordings of each speaker. sure: no guess."""

    rule: Rule
    by: str
    counts: Mapping[str, int]
    sure: bool = True

    def __str__(self) -> str:
        return f"{summary(self.counts)} (by {self.by})"


def summary(counts: Mapping[str, int]) -> str:
    """ "10 speakers, 35 to 69 recordings each: 03, 08, 09, ..."."""
    if not counts:
        return "no speaker"
    names = sorted(counts)
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    low, high = min(counts.values()), max(counts.values())
    each = f"{low} to {high} recordings" if low < high else _number(high, "recording")
    return f"{_number(len(names), 'speaker')}, {each} each: {shown}"


def _number(count: int, of: str) -> str:
    return f"{count} {of}" if count == 1 else f"{count} {of}s"


def rule(key: str = "", pattern: str = "") -> Rule:
    """A rule that somebody gives; raises SpeakerError."""
    if key and pattern:
        raise SpeakerError("give --speaker or --speaker-pattern, not both")
    if pattern and pattern != NOBODY:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise SpeakerError(f"--speaker-pattern {pattern!r}: {error}") from None
        if not groups or len(pattern) > MAX_PATTERN:
            raise SpeakerError(
                f"--speaker-pattern {pattern!r}: put the part of the file's name that is the "
                r"speaker into parentheses, for example '(\d\d)a'"
            )
    return Rule(key, pattern)


def count(items: Iterable[Item], by: Rule) -> Counter[str]:
    """How many recordings each speaker has; who isn't known is left out."""
    found = Counter(by.speaker(data, address) for data, address in items)
    del found[""]
    return found


def propose(items: Sequence[Item], labels: Iterable[str] = ()) -> Found | None:
    """What looks like speakers, the surest first; None where nothing does.

    labels: of the project, which folders may be called by.
    """
    never = {label.strip().lower() for label in labels}
    paths = [path_of(address) for _, address in items]
    for by, rule_, sure in _candidates(items):
        if rule_.key:
            found = count(items, rule_)
        else:
            pattern = re.compile(rule_.pattern)
            matches = filter(None, map(pattern.search, paths))
            found = Counter("-".join(filter(None, match.groups())) for match in matches)
        if _are_people(found, len(items), never):
            return Found(rule_, by, dict(found), sure)
    return None


def address_in(data: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first recording of a task, by the keys that the labeling config names; of a segment the
    recording that it was cut from."""
    return segments.source_of(data) or next((data[key] for key in keys if data.get(key)), "")


def path_of(address: Any) -> str:
    """A recording's file, as far as an address says where it lies: folders and name.

    Without what Label Studio puts before it: /data/upload/7/1a2b3c4d-name.wav,
    /data/local-files/?d=folder/name.wav, /tasks/12/resolve/?fileuri=...
    """
    if not isinstance(address, str):
        return ""
    try:
        parts = urlsplit(address.strip())
        query = parse_qs(parts.query)
    except ValueError:
        return ""
    if "/data/local-files" in parts.path and "d" in query:
        return query["d"][-1].strip("/")
    if parts.path.endswith("/resolve/") and "fileuri" in query:
        encoded = query["fileuri"][-1]
        try:
            return path_of(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
        except (binascii.Error, UnicodeDecodeError):
            return ""
    upload = UPLOAD.search(parts.path)
    return unquote(upload["name"] if upload else parts.path).strip("/")


def _candidates(items: Sequence[Item]) -> Iterator[tuple[str, Rule, bool]]:
    keys = dict.fromkeys(key for data, _ in items[:100] for key in data)
    for key in keys:
        if key.lower() in KEYS:
            yield f"{key!r} of the tasks' data", Rule(key=key), True
    for name, pattern in NAMES:
        yield f"file names like {name}'s", Rule(pattern=pattern), True
    for name, pattern in (*SAID, *FOLDERS):
        yield name, Rule(pattern=pattern), True
    for name, pattern in MAYBE:
        yield name, Rule(pattern=pattern), False


def _are_people(found: Counter[str], recordings: int, never: set[str]) -> bool:
    """Few, each with several recordings, nearly everything covered, none called like a label."""
    if len(found) < 2 or found.total() < MIN_KNOWN * recordings:
        return False
    words = {re.sub(r"[\d_. -]+$", "", name).lower() for name in found}
    if words & never or any(NO_SPEAKERS.fullmatch(word) for word in words):
        return False
    if all(re.fullmatch(r"(?:19|20)\d\d", name) for name in found):  # years
        return False
    several = sum(number >= MIN_EACH for number in found.values())
    return several >= MOST * len(found)
