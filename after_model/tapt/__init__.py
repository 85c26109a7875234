"""Task-adaptive pre-training (section 3.2 of Li et al. 2024): continue a backbone's own
pre-training on the pool's audio, without labels.

    report = adapt(backbone, pool, store, folder)       # resumes, or returns at once if done
    adapted = after_model.backbone.load(folder)
    embeddings = surprisal(folder, store, pool)         # for ALPS

Several GPUs: run the same program under torchrun (`python -m after_model.tapt --help`).

The folder gets the adapted backbone (config.json, model.safetensors, preprocessor_config.json),
tapt_heads.safetensors, tapt_units.safetensors ("hubert"), tapt_plan.json with the recordings that
it was begun with, tapt_log.jsonl with one line a step, and tapt.json, written last: without it the
folder is unfinished and adapt() goes on from its last checkpoint. Randomness is drawn from (seed,
step), so a resumed run ends where it would have.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from after_model import backbone as backbones
from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.device import current, resolve_device, resolve_precision
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
    "identity",
    "load",
    "load_units",
    "reconstruction_loss",
    "report",
    "surprisal",
]

_MAY_CHANGE = ("precision", "save_every", "save_every_s", "collapse_perplexity", "collapse_steps")
"""Settings that may differ from one run of an adaptation to the next."""


def adapt(
    backbone: Backbone,
    utterances: Sequence[Utterance],
    store: FeatureStore,
    folder: Path | str,
    config: TaptConfig | None = None,
    *,
    held_out: Sequence[Utterance] = (),
    restart: bool = False,
    progress: Progress = silent,
    device: str = "auto",
) -> TaptReport:
    """Pre-train a copy of the backbone on the utterances' audio and save it in `folder`.

    backbone itself is left as it is, and so is the global random state. Unreadable recordings are
    skipped and reported, those too that become so on the way. held_out utterances are only measured
    on, before and after.

    A finished folder returns its report at once, whatever recordings have gone or come since. An
    unfinished one goes on from its last checkpoint on the recordings that it was begun with, as far
    as they are still given; it begins anew if less than half are, or if backbone or settings are
    others. restart: begin anew whatever the folder holds.

    Raises TaptError when nothing can be trained on or the folder holds another finished adaptation,
    TaptCollapse when training degenerates (the folder can then be used again).
    """
    config = _resolved(backbone, config)
    files = Folder(Path(folder))
    decisive = _identity(backbone, config)
    ids, held_ids = [u.id for u in utterances], [u.id for u in held_out]
    done = None if restart else files.report(decisive, ids, held_ids)
    if done is not None:
        return done
    where = resolve_device(device)
    with current(where):
        accelerator = make_accelerator(
            where, resolve_precision(where, config.precision), config.accumulation
        )
        with torch.random.fork_rng(devices=[accelerator.device] if where.type == "cuda" else []):
            if accelerator.is_main_process:
                files.begin(decisive, ids, held_ids, restart)
            accelerator.wait_for_everyone()
            run = Run(backbone, utterances, held_out, store, files, config, accelerator, progress)
            run.train()
    return files.stored_report()


def identity(backbone: Backbone, config: TaptConfig | None = None) -> str:
    """Names an adaptation by what decides it but the audio, in 20 letters; fit for a folder's name.

    Other for another backbone or changed settings, the same in any release for the same ones.
    """
    config = _resolved(backbone, config)
    defaults = {field.name: field.default for field in dataclasses.fields(TaptConfig)}
    changed = {
        name: value
        for name, value in _identity(backbone, config).items()
        if name not in defaults or value != defaults[name]
    }
    text = json.dumps(changed, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def finished(folder: Path | str) -> bool:
    """Whether the folder holds an adaptation that has come to its end."""
    try:
        Folder(Path(folder)).finished_config()
    except TaptError:
        return False
    return True


def report(folder: Path | str) -> TaptReport:
    """What the adaptation in the folder did. Raises TaptError when it holds no finished one."""
    files = Folder(Path(folder))
    files.finished_config()
    return files.stored_report()


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


def _resolved(backbone: Backbone, config: TaptConfig | None) -> TaptConfig:
    size = sum(p.numel() for p in backbone.parameters())
    layers = backbone.num_layers
    return (config or TaptConfig()).resolved(backbone.family, layers, size)


def _identity(backbone: Backbone, config: TaptConfig) -> dict[str, Any]:
    """What decides an adaptation's result but the audio: a folder belongs to one of these."""
    weights = hashlib.blake2b(digest_size=10)
    for name, weight in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    settings = dataclasses.asdict(config)
    for name in _MAY_CHANGE:
        del settings[name]
    return {"backbone": weights.hexdigest(), **settings}
