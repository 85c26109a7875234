"""Words for emotions that corpora and benchmarks use, and the common name of each."""

from __future__ import annotations

COMMON = {
    "ang": "anger",
    "anger": "anger",
    "angry": "anger",
    "bored": "boredom",
    "boredom": "boredom",
    "calm": "calm",
    "dis": "disgust",
    "disgust": "disgust",
    "disgusted": "disgust",
    "exc": "excitement",
    "excited": "excitement",
    "fea": "fear",
    "fear": "fear",
    "fearful": "fear",
    "fru": "frustration",
    "frustrated": "frustration",
    "hap": "happiness",
    "happiness": "happiness",
    "happy": "happiness",
    "joy": "happiness",
    "neu": "neutral",
    "neutral": "neutral",
    "sad": "sadness",
    "sadness": "sadness",
    "sur": "surprise",
    "surprise": "surprise",
    "surprised": "surprise",
}


def common(word: str) -> str:
    """The common name of an emotion; a word that isn't listed stays what it is, in lower case."""
    lower = word.strip().lower()
    return COMMON.get(lower, lower)
