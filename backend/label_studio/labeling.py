"""Labeling config and annotations <-> labels; pure.

A control is a `Choices` that belongs to an `Audio`: each is a question that the model learns to
answer for a whole recording. Its labels are what annotations hold: a choice's alias where it has
one, else its value.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

EXAMPLE = """\
<View>
  <Audio name="audio" value="$audio"/>
  <Choices name="emotion" toName="audio" choice="single">
    <Choice value="angry"/>
    <Choice value="happy"/>
    <Choice value="neutral"/>
    <Choice value="sad"/>
  </Choices>
</View>"""

AUDIO_TAGS = ("audio", "audioplus")  # AudioPlus is an older name
DIGITS = 6  # of probabilities, which is what a person or a file can use


class LabelingError(ValueError):
    """A config with no question on audio; the message says why and ends with EXAMPLE."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}. Put a Choices on an Audio into the project's labeling interface "
            f"(Settings > Labeling Interface > Code), for example:\n{EXAMPLE}"
        )
        self.reason = reason


@dataclass(frozen=True)
class Control:
    """A question about a recording. audio_key: where task["data"] has the recording."""

    name: str
    to_name: str
    audio_key: str
    labels: tuple[str, ...]
    multiple: bool


def controls(label_config: str) -> tuple[Control, ...]:
    """The questions on audio, in the order of the config; raises LabelingError for none."""
    root = _parsed(label_config)
    audio = {
        tag.get("name", ""): tag.get("value", "")
        for tag in root.iter()
        if _kind(tag) in AUDIO_TAGS and tag.get("name")
    }
    found: dict[str, Control] = {}
    reasons: list[str] = []
    for tag in root.iter():
        if _kind(tag) != "choices":
            continue
        control = _control(tag, audio)
        if isinstance(control, str):
            reasons.append(control)
        elif control.name in found:
            raise LabelingError(f"two Choices are named {control.name!r}")
        else:
            found[control.name] = control
    if found:
        return tuple(found.values())
    if reasons:
        raise LabelingError("; ".join(reasons))
    raise LabelingError(f"the labeling config has no {'Choices' if audio else 'Audio'} tag")


def votes(control: Control, annotations: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What each annotator chose, in the order of annotators.

    Skipped and empty annotations say nothing. Of an annotator's several the newest counts. A
    ground truth stands alone. Labels that the control doesn't have any more are ignored.
    """
    said = [(a, chosen) for a in annotations if (chosen := _chosen(control, a))]
    said.sort(key=lambda pair: _age(pair[0]))
    truths = [chosen for annotation, chosen in said if annotation.get("ground_truth") is True]
    if truths:
        return [truths[-1]]
    newest = {_annotator(annotation): chosen for annotation, chosen in said}
    return [newest[annotator] for annotator in sorted(newest)]


def result(control: Control, probs: Sequence[float]) -> dict[str, Any]:
    """An entry of a prediction's `result`: the choice with its probability, and those of all.

    Label Studio keeps `score` and `meta` as they are, in its own pages and in exports. The choice
    comes first because the Data Manager shows an entry from its beginning.
    """
    if len(probs) != len(control.labels):
        raise ValueError(
            f"{control.name}: {len(probs)} probabilities, {len(control.labels)} labels"
        )
    top = max(range(len(probs)), key=lambda i: probs[i])
    chosen = {top}
    if control.multiple:
        chosen |= {i for i, p in enumerate(probs) if p > 0.5}
    return {
        "value": {"choices": [control.labels[i] for i in sorted(chosen)]},
        "score": round(float(probs[top]), DIGITS),
        "from_name": control.name,
        "to_name": control.to_name,
        "type": "choices",
        "meta": {
            "probabilities": {
                label: round(float(p), DIGITS)
                for label, p in zip(control.labels, probs, strict=True)
            }
        },
    }


# --- config --------------------------------------------------------------------------------------


def _parsed(label_config: str) -> ET.Element:
    if not label_config.strip():
        raise LabelingError("the labeling config is empty")
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", label_config, re.IGNORECASE):
        raise LabelingError("the labeling config declares a DOCTYPE, which Label Studio never does")
    try:
        return ET.fromstring(label_config)
    except (ET.ParseError, ValueError) as error:
        raise LabelingError(f"the labeling config is not well-formed XML: {error}") from None


def _kind(tag: ET.Element) -> str:
    return tag.tag.lower() if isinstance(tag.tag, str) else ""


def _control(tag: ET.Element, audio: Mapping[str, str]) -> Control | str:
    """The control of a Choices tag, or why it isn't one."""
    name = tag.get("name", "")
    if not name or not tag.get("toName"):
        return "a Choices has no name or no toName"
    targets = [target.strip() for target in tag.get("toName", "").split(",")]
    target = next((t for t in targets if t in audio), None)
    if target is None:
        return f"Choices {name!r} belongs to {', '.join(map(repr, targets))}, which is no Audio tag"
    value = audio[target]
    if not re.fullmatch(r"\$[^\s${}]+", value):
        return f'Audio {target!r} needs value="$key" with a key of the tasks\' data, not {value!r}'
    if tag.get("perRegion", "").lower() == "true":
        return f"Choices {name!r} is asked per region (perRegion), not for the recording"
    if tag.get("value", "").startswith("$") or tag.get("apiUrl"):
        return f"Choices {name!r} takes its choices from the tasks' data; list them in the config"
    choices = [child for child in tag.iter() if _kind(child) == "choice"]
    if any(
        _kind(inner) == "choice"
        for choice in choices
        for inner in choice.iter()
        if inner is not choice
    ):
        return f"Choices {name!r} has choices inside choices; make it one flat list"
    labels = tuple(
        dict.fromkeys(
            label for choice in choices if (label := choice.get("alias") or choice.get("value"))
        )
    )
    if len(labels) < 2:
        return f"Choices {name!r} has {len(labels)} choices and needs two at least"
    return Control(
        name=name,
        to_name=target,
        audio_key=value.removeprefix("$"),
        labels=labels,
        multiple=tag.get("choice", "single").lower() == "multiple",
    )


# --- annotations ---------------------------------------------------------------------------------


def _chosen(control: Control, annotation: Mapping[str, Any]) -> list[str]:
    """The control's labels that an annotation chooses, in the control's order."""
    if annotation.get("was_cancelled"):
        return []
    given: set[str] = set()
    for entry in annotation.get("result") or ():
        if not isinstance(entry, Mapping) or entry.get("from_name") != control.name:
            continue
        value = entry.get("value")
        chosen = value.get("choices") if isinstance(value, Mapping) else None
        if isinstance(chosen, str):
            chosen = [chosen]
        given.update(label for label in chosen or () if isinstance(label, str))
    return [label for label in control.labels if label in given]


def _annotator(annotation: Mapping[str, Any]) -> tuple[int, str]:
    """Who annotated, in an order that is always the same."""
    who = annotation.get("completed_by")
    if isinstance(who, Mapping):
        who = who.get("id", who.get("email"))
    if who is None:
        return 1, str(annotation.get("id"))
    return 0, f"{who:>20}"


def _age(annotation: Mapping[str, Any]) -> tuple[float, int, str]:
    """Sorts annotations from the oldest to the newest, whatever order they come in."""
    written = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    try:
        moment = datetime.fromisoformat(written)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        seconds = 0.0
    number = annotation.get("id")
    return seconds, number if isinstance(number, int) else -1, str(annotation.get("result"))
