"""The demonstration corpus: generated speech-like audio, so that nothing need be downloaded.

Twelve speakers, six female and six male, each with a voice, a room and habits of their own; four
emotions that differ in pitch, its movement, rate, effort and voice quality, as the literature on
vocal expression describes them (Scherer 2003; Juslin and Laukka 2003), with as much variation
between speakers and utterances as between emotions; 5 % of the labels are wrong. It shows that the
method works and how to run it. It is no evidence about real speech.

    python -m simulate.data.loaders.demo FOLDER     writes it, for other programs to use
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import soundfile

from after_model.audio import SAMPLE_RATE
from after_model.progress import Progress, silent
from simulate.data.corpus import Release
from simulate.data.errors import CorpusError
from simulate.data.loaders import manifest
from simulate.voice import Delivery, Speaker, synthesize

CLASSES = ("anger", "happiness", "neutral", "sadness")
DEFAULT_UTTERANCES = 384
DEFAULT_FOLDER = ".cache/after-label-studio/demo"  # below the user's home
VERSION = 2  # of the generated audio: a cached folder of another version isn't taken for this one
LABEL_NOISE = 0.05
# A wrong label is mostly the other emotion of the same arousal.
CONFUSED_WITH = {
    "anger": "happiness",
    "happiness": "anger",
    "neutral": "sadness",
    "sadness": "neutral",
}


@dataclass(frozen=True)
class Manner:
    """Shifts of a delivery away from unmarked speech; rates, ranges and the like as logarithms."""

    pitch_st: float = 0.0
    pitch_range: float = 0.0  # ln
    rate: float = 0.0  # ln
    effort: float = 0.0
    breath: float = 0.0
    roughness: float = 0.0
    articulation: float = 0.0  # ln
    smile: float = 0.0
    accent: float = 0.0  # ln
    final_st: float = 0.0
    pause: float = 0.0  # ln


EMOTIONS = {
    "anger": Manner(3.5, 0.4, 0.1, 1.2, -0.5, 1.0, 0.15, -0.5, 0.6, -3.0, -0.4),
    "happiness": Manner(5.5, 1.1, 0.1, 0.15, 0.1, -0.4, 0.1, 2.2, 0.25, 5.0, -0.2),
    "neutral": Manner(),
    "sadness": Manner(-1.0, -0.9, -0.16, -0.6, 1.2, 0.2, -0.28, -0.5, -0.6, 0.0, 0.5),
}
# Standard deviations: of a speaker's habits, and of one utterance around them.
HABITS = Manner(0.0, 0.1, 0.06, 0.22, 0.22, 0.22, 0.03, 0.2, 0.1, 0.5, 0.12)
MOODS = Manner(1.0, 0.16, 0.06, 0.25, 0.2, 0.25, 0.04, 0.22, 0.12, 0.8, 0.18)
# Set so that logistic regression on frozen features of the embedded backbone, speaker-independent,
# gets a UA of about 0.75 to 0.8: as hard as acted speech is, neither at chance nor at 1.
INTENSITY = (0.8, 1.4)  # how strongly an utterance shows its emotion
EXPRESSIVENESS_SD = 0.15  # how differently speakers show each trait of an emotion


def read(
    root: Path | None,
    classes: Sequence[str] | None = None,
    utterances: int = DEFAULT_UTTERANCES,
    seed: int = 0,
    progress: Progress = silent,
) -> Release:
    """The demonstration corpus, generated once into a folder below `root` and read from there.

    `root` defaults to a cache in the user's home. The same number of utterances and seed give the
    same corpus. Raises `CorpusError` where the folder can't be written.
    """
    parent = Path.home() / DEFAULT_FOLDER if root is None else root
    folder = parent / f"demo-{VERSION}-{utterances}-{seed}"
    try:
        write(folder, utterances, seed, progress)
    except OSError as error:
        raise CorpusError(
            f"demo: can't write {folder}: {error.strerror or error}; give a folder that can be "
            "written as root"
        ) from error
    release = manifest.read(folder, name="demo")
    note = f"generated audio, not speech; {LABEL_NOISE:.0%} of the labels are wrong on purpose"
    return replace(release, classes=CLASSES, default=CLASSES, notes=(note,))


def write(
    folder: Path,
    utterances: int = DEFAULT_UTTERANCES,
    seed: int = 0,
    progress: Progress = silent,
) -> None:
    """Writes the corpus as 16 kHz WAV files with a `manifest.csv`; nothing if it is there already.

    Written beside and renamed, so that a folder is complete or absent, also when several processes
    write it at once. The manifest's column `acted` holds the emotion before label noise.
    """
    if utterances < 1:
        raise CorpusError(f"demo: utterances={utterances}: at least 1")
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _generate(temporary, utterances, seed, progress)
        temporary.chmod(0o755)  # mkdtemp's is private; Label Studio may run as another user
        os.rename(temporary, folder)
    except OSError:
        if not folder.exists():  # another process was first: its folder has the same content
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _generate(folder: Path, utterances: int, seed: int, progress: Progress) -> None:
    voices_seed, plan_seed, audio_seed = np.random.SeedSequence(seed).spawn(3)
    rng = np.random.default_rng(voices_seed)
    voices = [_Voice.draw(number, rng) for number in range(12)]
    plan = _plan(utterances, len(voices), np.random.default_rng(plan_seed))
    rows = []
    for number, (speaker, acted, label) in enumerate(plan):
        # Each utterance has a generator of its own: no sound depends on those before it.
        own = np.random.default_rng([*audio_seed.generate_state(2), number])
        voice = voices[speaker]
        path = Path(voice.speaker.name) / f"{voice.speaker.name}-{number // len(voices):03d}.wav"
        sound = synthesize(voice.speaker, voice.delivery(acted, own), own)
        (folder / path.parent).mkdir(exist_ok=True)
        soundfile.write(folder / path, sound, SAMPLE_RATE, subtype="PCM_16")
        rows.append((path.as_posix(), label, voice.speaker.name, acted))
        progress("generate the demonstration corpus", number + 1, utterances)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "speaker", "acted"))
        writer.writerows(sorted(rows))


def _plan(utterances: int, speakers: int, rng: np.random.Generator) -> list[tuple[int, str, str]]:
    """(speaker, acted emotion, label) of each utterance: speakers in turn, emotions balanced."""
    acted: list[str] = []
    while len(acted) < utterances:  # every round, each speaker says something in one emotion
        rounds = np.stack([rng.permutation(len(CLASSES)) for _ in range(speakers)], axis=1)
        acted += [CLASSES[i] for i in rounds.ravel()]
    acted = acted[:utterances]
    labels = list(acted)
    for i in rng.permutation(utterances)[: round(LABEL_NOISE * utterances)]:
        others = [c for c in CLASSES if c not in (acted[i], CONFUSED_WITH[acted[i]])]
        labels[i] = CONFUSED_WITH[acted[i]] if rng.random() < 0.7 else str(rng.choice(others))
    return [(i % speakers, acted[i], labels[i]) for i in range(utterances)]


@dataclass(frozen=True)
class _Voice:
    """A speaker with the habits that colour every emotion, and a way of showing each."""

    speaker: Speaker
    habits: np.ndarray  # [traits]
    expression: dict[str, np.ndarray]  # factors on the emotion's traits, [traits]

    @staticmethod
    def draw(number: int, rng: np.random.Generator) -> _Voice:
        female = number % 2 == 0
        speaker = Speaker(
            name=f"{'f' if female else 'm'}{number // 2 + 1}",
            tract=float(rng.normal(1.16 if female else 1.0, 0.035)),
            pitch_hz=float(rng.normal(205, 18) if female else rng.normal(115, 13)),
            formant_shift=tuple(rng.normal(1, 0.04, 3)),
            equalizer_db=tuple(rng.normal(0, 2, 3)),
            reverberation_db=float(rng.uniform(-30, -16)),
            noise_db=float(rng.uniform(24, 42)),
        )
        habits = rng.normal(0, 1, len(_traits(HABITS))) * _traits(HABITS)
        expression = {emotion: rng.normal(1, EXPRESSIVENESS_SD, len(habits)) for emotion in CLASSES}
        return _Voice(speaker, habits, expression)

    def delivery(self, emotion: str, rng: np.random.Generator) -> Delivery:
        """How this speaker says one utterance in an emotion."""
        strength = rng.uniform(*INTENSITY) * self.expression[emotion]
        mood = rng.normal(0, 1, len(self.habits)) * _traits(MOODS)
        manner = Manner(*(self.habits + mood + strength * _traits(EMOTIONS[emotion])))
        neutral = Delivery(syllables=int(rng.integers(6, 10)))
        return replace(
            neutral,
            pitch_st=manner.pitch_st,
            pitch_range=neutral.pitch_range * np.exp(manner.pitch_range),
            rate=neutral.rate * np.exp(np.clip(manner.rate, -0.35, 0.35)),
            effort=manner.effort,
            breath=manner.breath,
            roughness=manner.roughness,
            articulation=neutral.articulation * np.exp(manner.articulation),
            smile=manner.smile,
            accent=neutral.accent * np.exp(manner.accent),
            final_st=neutral.final_st + manner.final_st,
            pause_s=neutral.pause_s * np.exp(manner.pause),
        )


def _traits(manner: Manner) -> np.ndarray:
    return np.array([getattr(manner, field.name) for field in fields(Manner)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the corpus into a folder, unless it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m simulate.data.loaders.demo",
        description="Write generated speech-like audio, and manifest.csv with what it expresses.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--utterances", type=int, default=DEFAULT_UTTERANCES, help="how many (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    new = not options.folder.exists()
    try:
        write(options.folder, options.utterances, options.seed)
    except (CorpusError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {'written' if new else 'is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
