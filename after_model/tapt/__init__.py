"""Task-adaptive pre-training (section 3.2 of Li et al. 2024): continue a backbone's own
pre-training on the pool's audio, without labels.

    report = adapt(backbone, pool, store, folder)       # resumes, or returns at once if done
    adapted = after_model.backbone.load(folder)
    embeddings = surprisal(folder, store, pool)         # for ALPS

Several GPUs: run the same program under torchrun (`python -m after_model.tapt --help`).

The folder gets the adapted backbone (config.json, model.safetensors, preprocessor_config.json),
tapt_heads.safetensors, tapt_units.safetensors ("hubert"), tapt_log.jsonl with one line a step, and
tapt.json, written last: without it the folder is unfinished and adapt() goes on from its last
checkpoint. Randomness is drawn from (seed, step), so a resumed run ends where it would have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from after_model import backbone as backbones
from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.device import resolve_device, resolve_precision
from after_model.features import FeatureStore
from after_model.progress import Progress, silent
from after_model.tapt.config import HeldOut, TaptCollapse, TaptConfig, TaptError, TaptReport
from after_model.tapt.evaluation import frame_surprisal, held_out_accuracy
from after_model.tapt.files import Folder
from after_model.tapt.losses import contrastive_loss, reconstruction_loss
from after_model.tapt.objectives import TaptModel
from after_model.tapt.training import Run, make_accelerator
from after_model.tapt.units import Units
from after_model.tapt.units import load_units as _read_units

__all__ = [
    "HeldOut",
    "TaptCollapse",
    "TaptConfig",
    "TaptError",
    "TaptModel",
    "TaptReport",
    "adapt",
    "contrastive_loss",
    "finished",
    "held_out_accuracy",
    "load",
    "load_units",
    "reconstruction_loss",
    "surprisal",
]


def adapt(
    backbone: Backbone,
    utterances: Sequence[Utterance],
    store: FeatureStore,
    folder: Path | str,
    config: TaptConfig | None = None,
    *,
    held_out: Sequence[Utterance] = (),
    progress: Progress = silent,
    device: str = "auto",
) -> TaptReport:
    """Pre-train a copy of the backbone on the utterances' audio and save it in `folder`.

    backbone itself is left as it is, and so is the global random state. Unreadable recordings are
    skipped and reported. held_out utterances are only measured on, before and after. A finished
    folder returns its report at once.

    Raises TaptError when nothing can be trained on or the folder holds another adaptation,
    TaptCollapse when training degenerates (the folder can then be used again).
    """
    size = sum(p.numel() for p in backbone.parameters())
    layers = backbone.num_layers
    config = (config or TaptConfig()).resolved(backbone.family, layers, size)
    files = Folder(Path(folder))
    identity = _identity(backbone, utterances, held_out, config)
    report = files.report(identity)
    if report is not None:
        return report
    where = resolve_device(device)
    accelerator = make_accelerator(
        where, resolve_precision(where, config.precision), config.accumulation
    )
    with torch.random.fork_rng(devices=[accelerator.device] if where.type == "cuda" else []):
        with accelerator.main_process_first():
            if accelerator.is_main_process:
                files.begin(identity)
            failures = store.fill([*utterances, *held_out], progress)
        run = Run(
            backbone, utterances, held_out, failures, store, files, config, accelerator, progress
        )
        run.train()
    report = files.report(identity)
    assert report is not None
    return report


def finished(folder: Path | str) -> bool:
    """Whether the folder holds an adaptation that has come to its end."""
    try:
        Folder(Path(folder)).finished_config()
    except TaptError:
        return False
    return True


def load(folder: Path | str) -> TaptModel:
    """An adapted backbone with its heads, in evaluation mode on the CPU.

    Raises TaptError when the folder holds no finished adaptation.
    """
    config = Folder(Path(folder)).finished_config()
    units = load_units(folder)
    count = len(units.centres) if units else 0
    return TaptModel.from_config(backbones.load(folder), config, units=count).eval()


def load_units(folder: Path | str) -> Units | None:
    """The units of a "hubert" adaptation, None for the other objectives."""
    path = Folder(Path(folder)).units
    return _read_units(path) if path.exists() else None


def surprisal(
    adapted: TaptModel | Path | str,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    size: int = 64,
    units: Units | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> np.ndarray:
    """Surprisal embeddings, float32 [N, size], for ALPS (eq. 7): each frame's pre-training loss.

    adapted: the folder of an adaptation, or a model with its units if it has any. The loss of the
    unmasked frames (eq. 1 plus eq. 2, or the cross-entropy of the units), nats, averaged into
    `size` equal parts of the utterance; not normalised. Nothing is drawn at random.
    """
    if isinstance(adapted, TaptModel):
        model = adapted
    else:
        model, units = load(adapted), load_units(adapted)
    model.to(resolve_device(device))
    return frame_surprisal(model, store, utterances, size=size, units=units, progress=progress)


def _identity(
    backbone: Backbone,
    utterances: Sequence[Utterance],
    held_out: Sequence[Utterance],
    config: TaptConfig,
) -> dict[str, Any]:
    """What decides an adaptation's result: a folder belongs to one of these."""
    weights = hashlib.blake2b(digest_size=10)
    for name, weight in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    settings = asdict(config)
    for name in ("precision", "save_every", "collapse_perplexity", "collapse_steps"):
        del settings[name]  # may change from one run to the next
    return {
        "backbone": weights.hexdigest(),
        "utterances": _digest(utterances),
        "held_out": _digest(held_out),
        **settings,
    }


def _digest(utterances: Sequence[Utterance]) -> str:
    names = "\n".join(u.id for u in utterances)
    return f"{len(utterances)}, {hashlib.blake2b(names.encode(), digest_size=10).hexdigest()}"
