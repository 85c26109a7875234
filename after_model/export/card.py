"""What an exported model says of itself: README.md, as the Hugging Face hub reads one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from after_model.backbone import WEIGHTS, Backbone, load

_CROSS_VALIDATED = (
    "cross-validation on the labels given, by speaker where speakers are known; labels that were "
    "asked for in doubt are harder than the rest, so it leans low"
)


@dataclass(frozen=True)
class Quality:
    """A measure in [0, 1] with its 95 % interval, from so many labels, and how it was taken."""

    measure: str
    value: float
    low: float
    high: float
    labels: int
    how: str


@dataclass(frozen=True)
class Licence:
    """Of a backbone's weights: the hub's identifier, and one sentence; text: a file to go along."""

    identifier: str
    sentence: str
    text: Path | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside its files; what is not is left out of the card.

    settings: the learner's configuration as its state keeps it. notes: paragraphs.
    """

    name: str = "emotion-classifier"
    created: str = ""
    recordings: int | None = None
    labelled: int | None = None
    kept: str = ""
    quality: tuple[Quality, ...] = ()
    settings: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def facts(folder: Path) -> Facts:
    """Of a version in a model store, and the learner whose it is; few of any other folder."""
    told = _json(folder / "metadata.json")
    if not told:
        return Facts()
    labelled, share = told.get("labelled"), told.get("share")
    state = _json(folder.parents[2] / "state.json") if len(folder.parents) > 2 else {}
    return Facts(
        name=str(told.get("version", folder.name)),
        created=str(told.get("created", "")),
        recordings=round(labelled / share) if labelled and share else None,
        labelled=labelled,
        kept=str(told.get("kept", "")),
        quality=quality(told),
        settings=state.get("settings"),
    )


def accuracy(correct: int, labels: int, measure: str, how: str) -> Quality:
    """A share of labels with Wilson's interval."""
    low, high = binomtest(correct, labels).proportion_ci(0.95, method="wilson")
    return Quality(measure, correct / labels, float(low), float(high), labels, how)


def licence(backbone: Backbone) -> Licence | None:
    """Of an embedded backbone, adapted or not (the stem stays); None for one that is not."""
    known = {
        "whisper-base": Licence(
            "mit",
            "The encoder is OpenAI's Whisper-base: MIT, copyright (c) 2022 OpenAI; the text is in "
            "LICENSE and has to go wherever the weights go.",
            WEIGHTS / "whisper-base" / "LICENSE",
        ),
        "after-tiny": Licence("cc-by-sa-4.0", "The encoder is after-tiny: CC BY-SA 4.0."),
    }
    stem = backbone.cnn_hash
    return next((found for name, found in known.items() if load(name).cnn_hash == stem), None)


def text(
    known: Facts,
    labels: tuple[str, ...],
    backbone: Backbone,
    licence: Licence | None,
    reader: str,
    onnx: bool,
) -> str:
    """README.md. reader: the class in transformers that reads the folder."""
    identifier = licence.identifier if licence else "other"
    front = "\n".join([
        "---", f"license: {identifier}", "library_name: transformers",
        "pipeline_tag: audio-classification", "tags:", "- speech-emotion-recognition", "- after",
        "---",
    ])  # fmt: skip
    parts = [front, f"# {known.name}", _is(labels, backbone), _quality_text(known)]
    parts += ["## How it was trained", _training(known)]
    parts += list(known.notes)
    parts += ["## How to use it", _use(reader, labels, backbone, onnx)]
    sentence = licence.sentence if licence else _unknown_licence(known)
    parts += ["## Licence", f"{sentence} Recordings and labels have licences of their own."]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- parts ---------------------------------------------------------------------------------------


def _is(labels: tuple[str, ...], backbone: Backbone) -> str:
    return (
        f"Says which of {len(labels)} emotions a recording of speech carries: "
        f"{', '.join(labels)}. Input is mono audio at 16 kHz of any length from 0.1 s; output a "
        "probability a class. Made with AFTER for Label Studio; the encoder's family is "
        f"{backbone.family}, {sum(p.numel() for p in backbone.parameters()) / 1e6:.1f} M weights."
    )


def _quality_text(known: Facts) -> str:
    if not known.quality:
        return "## Quality\n\nNot known: too few labels were held out to say it with an interval."
    rows = "\n".join(
        f"| {q.measure} | {q.value:.1%} | {q.low:.1%} to {q.high:.1%} | {q.labels} | {q.how} |"
        for q in known.quality
    )
    return (
        "## Quality\n\n| | | 95 % interval | labels | how |\n| --- | --- | --- | --- | --- |\n"
        f"{rows}\n\nOther speakers, microphones or languages than the recordings': not measured."
    )


def _training(known: Facts) -> str:
    said = []
    if known.labelled is not None:
        of = f" of {known.recordings} recordings" if known.recordings else ""
        said.append(f"From {known.labelled} labels{of}.")
    if known.kept == "probe":
        said.append(
            "A calibrated logistic regression on the frozen encoder's hidden states; several "
            "annotators' votes count as shares."
        )
    elif known.kept:
        said.append("The encoder was fine-tuned with its head.")
    settings = known.settings or {}
    if settings:
        said.append(
            f"Encoder: `{settings.get('backbone')}`"
            + (", adapted to the recordings (TAPT)." if settings.get("tapt") else ".")
        )
        said.append(
            f"Asked for by `{settings.get('strategy')}` after a start by `{settings.get('start')}`."
        )
    if settings.get("speakers") == "auto":
        said.append(
            "Where speakers are known and it helps, AFTER takes each speaker's mean off while it "
            "labels. This model does not know who speaks and does without: its answers can "
            "differ from those seen there, and where it was so the quality above is with the means."
        )
    if known.created:
        said.append(f"Made {known.created[:10]}.")
    return " ".join(said) or "Not recorded beside the model."


def _use(reader: str, labels: tuple[str, ...], backbone: Backbone, onnx: bool) -> str:
    normalise = backbone.normalize
    own = reader == "AfterForAudioClassification"
    trust = ", trust_remote_code=True" if own else ""
    why = (
        "Its head is none that transformers has, so the folder brings `modeling_after.py`, which "
        "needs torch and transformers only; without `trust_remote_code` nothing sensible loads."
        if own
        else f"It is a plain `{reader}`; give it one recording at a time, without padding."
    )
    scale = "wave = (wave - wave.mean()) / (wave.var() + 1e-7) ** 0.5\n" if normalise else ""
    read = (
        'import soundfile\nwave, rate = soundfile.read("speech.wav", dtype="float32")'
        "  # mono, 16 kHz"
    )
    blocks = [
        "With AFTER (any rate and format; CSV or JSON):\n\n"
        "```\npython -m after_model predict FOLDER recordings/ > emotions.csv\n```",
        f"With transformers:\n\n```python\nimport torch\nfrom transformers import "
        f"AutoModelForAudioClassification\n\n{read}\n{scale}"
        f'model = AutoModelForAudioClassification.from_pretrained("FOLDER"{trust})\n'
        "with torch.inference_mode():\n"
        "    probs = model(torch.from_numpy(wave)[None]).logits.softmax(-1)[0]\n"
        "print({model.config.id2label[i]: float(p) for i, p in enumerate(probs)})\n```\n\n"
        + why
        + _encoder_alone(backbone),
    ]
    if onnx:
        blocks.append(
            "With ONNX Runtime (the wave as it is; one recording at a time, any length):\n\n"
            f"```python\nimport onnxruntime\n\n{read}\n"
            'session = onnxruntime.InferenceSession("FOLDER/model.onnx")\n'
            'probs = session.run(None, {"wave": wave[None]})[0][0]\n'
            f"labels = {json.dumps(list(labels), ensure_ascii=False)}\n```"
        )
    return "\n\n".join(blocks)


def _encoder_alone(backbone: Backbone) -> str:
    if backbone.family != "whisper":
        return " `AutoModel` reads the encoder alone."
    cut = not getattr(backbone.config, "final_layer_norm", True)
    norm = ", the norm after the last layer too: the last hidden state is of no use" if cut else ""
    return (
        " `WhisperModel.from_pretrained(FOLDER).encoder` is the encoder alone; the decoder is not "
        f"there, and transformers fills it with random numbers{norm}. It wants 30 s of "
        "spectrogram, where this model hears a recording at its own length."
    )


def _unknown_licence(known: Facts) -> str:
    name = (known.settings or {}).get("backbone", "the encoder")
    return f"Not known here: look up the licence of `{name}` before you pass this on."


def quality(told: Mapping[str, Any]) -> tuple[Quality, ...]:
    """Of a round's record: accuracy, where it is known how many labels it was taken from."""
    share, labels = (told.get("validation") or {}).get("wa"), told.get("labelled")
    if share is None or not labels or told.get("kept") != "probe":
        return ()
    return (accuracy(round(share * labels), labels, "accuracy", _CROSS_VALIDATED),)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
