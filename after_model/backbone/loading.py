"""Backbones by name: embedded ones, the hub's, folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from after_model.audio import SAMPLE_RATE
from after_model.backbone import wav2vec2, whisper
from after_model.backbone.base import Backbone, BackboneError, quiet_transformers

DEFAULT = "whisper-base"
WEIGHTS = Path(__file__).parents[1] / "weights"
FAMILIES = (*wav2vec2.FAMILIES, *whisper.FAMILIES)
_LOADING_ERRORS = (OSError, ValueError, SafetensorError)


def load(name_or_path: str | Path = DEFAULT) -> Backbone:
    """Load a backbone: "whisper-base" or "after-tiny" (embedded; no network), hub name or folder.

    Returns it on the CPU in float32 and evaluation mode. Parameters that a checkpoint lacks (the
    mask embedding, at times) are initialised from a fixed seed.

    Raises BackboneError when it cannot be had, is of an unknown family, has no safetensors or
    wants another sampling rate than recordings are decoded at.
    """
    name = str(name_or_path)
    source = str(WEIGHTS / name) if (WEIGHTS / name / "config.json").exists() else name
    config = _fetch(name, lambda local: transformers.AutoConfig.from_pretrained(source, **local))
    if config.model_type not in FAMILIES:
        raise BackboneError(
            f"{name}: model type {config.model_type!r} is no speech backbone AFTER knows; "
            f"use one of {', '.join(FAMILIES)}"
        )
    extractor = _fetch(
        name,
        lambda local: transformers.AutoFeatureExtractor.from_pretrained(source, **local),
    )
    if extractor.sampling_rate != SAMPLE_RATE:
        raise BackboneError(
            f"{name}: preprocessor_config.json says sampling_rate {extractor.sampling_rate}; "
            f"recordings are read at {SAMPLE_RATE} Hz, so use a backbone trained at that rate"
        )
    heard = config.model_type in whisper.FAMILIES
    kind: type[Backbone] = whisper.WhisperBackbone if heard else wav2vec2.Wav2Vec2Backbone
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(0)
        model = _fetch(name, lambda local: kind.read(source, config, **local))
    if heard:
        return whisper.WhisperBackbone(model, name=name, extractor=extractor).eval()
    normalize = bool(extractor.do_normalize)
    return wav2vec2.Wav2Vec2Backbone(model, name=name, normalize=normalize).eval()


def _fetch(name: str, get: Callable[[dict[str, bool]], Any]) -> Any:
    """From disk if it is there, else from the hub; a BackboneError that helps if neither."""
    try:
        return get({"local_files_only": True})
    except _LOADING_ERRORS:
        pass
    try:
        if Path(name).exists():
            return get({"local_files_only": True})
        return get({})
    except _LOADING_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise BackboneError(
            f"cannot load backbone {name!r}: {reason}. Without a network use {DEFAULT!r} or "
            "'after-tiny', which are embedded, or name a folder that holds config.json, "
            "preprocessor_config.json and model.safetensors (pickled weights are not read)"
        ) from error
