"""What task-adaptive pre-training predicts: the heads on top of a backbone, by objective name.

    model = TaptModel(backbone, "paper", seed=0)
    losses = model(features, frames, mask, temperature=2.0)     # {"loss": ..., "perplexity": ...}

"paper"     eq. 3 of Li et al. 2024: eq. 1 between context and quantized features plus eq. 2 on the
            quantizer's own codewords, 15 % of the frames masked
"wav2vec2"  the objective of wav2vec 2.0: masked frames against 100 sampled distractors plus 0.1
            times the diversity loss
"hubert"    HuBERT's masked prediction: units (k-means clusters of the backbone's own features,
            after_model.tapt.units) from cosine logits, 20 % of the frames masked
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from after_model.backbone import WEIGHTS, Backbone, frame_mask
from after_model.tapt.config import TaptConfig
from after_model.tapt.losses import (
    contrastive_loss,
    distractor_loss,
    diversity_loss,
    perplexity,
    reconstruction_loss,
)

HEADS_FILE = "tapt_heads.safetensors"
HEAD_PREFIXES = ("quantizer.", "project_hid.", "project_q.", "token_head.", "unit_")


class Quantizer(nn.Module):
    """Gumbel-softmax product quantizer of wav2vec 2.0: one of V codes in each of G groups.

    Parameters are named as in transformers' Wav2Vec2ForPreTraining, so checkpoints fit.
    """

    def __init__(self, dim: int, groups: int, codes: int, codevector_dim: int) -> None:
        super().__init__()
        self.groups, self.codes = groups, codes
        self.codevectors = nn.Parameter(torch.rand(1, groups * codes, codevector_dim // groups))
        self.weight_proj = nn.Linear(dim, groups * codes)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)

    def forward(
        self, features: Tensor, temperature: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, T, D] -> vectors [B, T, Q], code logits [B, T, G, V], codes [B, T, G].

        temperature: of the Gumbel noise in training; None takes the likeliest code instead.
        In full precision always: half precision would flip tokens between steps.
        """
        with torch.autocast(features.device.type, enabled=False):
            logits = self.weight_proj(features.float()).unflatten(-1, (self.groups, -1))
            codebook = self.codevectors[0].unflatten(0, (self.groups, -1))
            if temperature is None:
                codes = logits.argmax(-1)
                chosen = F.one_hot(codes, logits.shape[-1]).to(logits.dtype)
            else:
                chosen = F.gumbel_softmax(logits, tau=temperature, hard=True)
                codes = chosen.argmax(-1)
            vectors = torch.einsum("btgv,gvd->btgd", chosen, codebook).flatten(2)
        return vectors, logits, codes

    @torch.no_grad()
    def start_from(self, centres: Tensor, features: Tensor) -> None:
        """Begin with the nearest centre as the likeliest code: centres [G, V, D], some [N, D].

        The logits -|x - c|^2 / 2, less what is the same for all codes, are scaled to the spread
        over codes that the usual random weights would give (the square root of D).
        """
        weight = centres.flatten(0, 1)
        bias = -weight.square().sum(-1) / 2
        logits = (features @ weight.T + bias).unflatten(-1, (self.groups, -1))
        scale = features.shape[1] ** 0.5 / logits.std(-1).mean().clamp_min(1e-6)
        self.weight_proj.weight.copy_(weight * scale)
        self.weight_proj.bias.copy_(bias * scale)


class CodebookHeads(nn.Module):
    """Quantizer and projections of the contrastive objectives; "paper" adds a token head."""

    def __init__(self, config: Any, dim: int, hidden_size: int, *, tokens: bool) -> None:
        super().__init__()
        groups = getattr(config, "num_codevector_groups", 2)
        codes = getattr(config, "num_codevectors_per_group", 320)
        width = getattr(config, "codevector_dim", 256)
        shared = getattr(config, "proj_codevector_dim", 256)
        self.quantizer = Quantizer(dim, groups, codes, width)
        self.project_hid = nn.Linear(hidden_size, shared)
        self.project_q = nn.Linear(width, shared)
        self.token_head = nn.Linear(hidden_size, groups * codes) if tokens else None

    def token_logits(self, context: Tensor) -> Tensor:
        """Predicted token logits [B, T * G, V]: the G codebooks side by side on the time axis."""
        assert self.token_head is not None
        logits = self.token_head(context).unflatten(-1, (self.quantizer.groups, -1))
        return logits.flatten(1, 2)


class UnitHeads(nn.Module):
    """HuBERT's prediction head: cosine of a projection and one embedding per unit, over 0.1."""

    def __init__(self, hidden_size: int, units: int, width: int = 256) -> None:
        super().__init__()
        self.unit_projection = nn.Linear(hidden_size, width)
        self.unit_embedding = nn.Parameter(torch.rand(units, width))

    def forward(self, context: Tensor) -> Tensor:
        """Unit logits [B, T, V]."""
        projected = F.normalize(self.unit_projection(context).float(), dim=-1)
        return projected @ F.normalize(self.unit_embedding, dim=-1).T / 0.1


class TaptModel(nn.Module):
    """A backbone with the heads of one objective; its forward pass is one pre-training loss.

    Heads that the backbone's checkpoint holds (a quantizer, an earlier adaptation's heads) are
    taken from it unless reuse_heads is off; `fresh` tells whether any started anew, and
    `fresh_codebook` whether the quantizer did. contrast: the positions that eq. 1 of "paper" runs
    over, "all" valid frames as printed, or the "masked" ones as in wav2vec 2.0.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: str,
        *,
        units: int = 100,
        contrast: str = "all",
        diversity_weight: float = 0.0,
        temperature: float = 0.1,
        seed: int = 0,
        reuse_heads: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.contrast = contrast
        self.diversity_weight = diversity_weight
        self.temperature = temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads: CodebookHeads | UnitHeads
            if objective == "hubert":
                self.heads = UnitHeads(backbone.hidden_size, units)
            else:
                self.heads = CodebookHeads(
                    backbone.config,
                    backbone.cnn_dim,
                    backbone.hidden_size,
                    tokens=objective == "paper",
                )
        own = self.heads.state_dict()
        stored = stored_heads(backbone.name) if reuse_heads else {}
        found = {
            name: weight
            for name, weight in stored.items()
            if name in own and own[name].shape == weight.shape
        }
        self.heads.load_state_dict({**own, **found})
        self.fresh = len(found) < len(own)
        self.fresh_codebook = "quantizer.codevectors" in own.keys() - found.keys()

    @classmethod
    def from_config(
        cls, backbone: Backbone, config: TaptConfig, *, units: int, reuse_heads: bool = True
    ) -> TaptModel:
        """The model of a resolved configuration; units: how many there are under "hubert"."""
        return cls(
            backbone,
            config.objective,
            units=units,
            contrast=config.contrast,
            diversity_weight=config.diversity_weight or 0.0,
            temperature=config.temperature,
            seed=config.seed,
            reuse_heads=reuse_heads,
        )

    def forward(
        self,
        features: Tensor,
        frames: Tensor,
        mask: Tensor,
        temperature: float | None = None,
        distractors: Tensor | None = None,
        units: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one batch: "loss" to minimise and its parts, scalars, nats.

        features [B, T, D] from the stem, or prepared waves [B, S] with frames holding their lengths
        in samples, to train the stem too; mask [B, T] bool; temperature of the Gumbel noise (None:
        likeliest code); distractors [B, M, K] for "wav2vec2"; units [B, T] for "hubert".
        """
        if features.ndim == 2:
            features, frames = self.backbone.encode_cnn(features, frames)
        context = self.backbone(features, frames, time_mask=mask)
        if isinstance(self.heads, UnitHeads):
            assert units is not None
            return unit_losses(self.heads(context), units, mask)
        valid = frame_mask(frames, features.shape[1])
        return self._codebook_losses(
            self.heads, context, features, valid, mask, temperature, distractors
        )

    def _codebook_losses(
        self,
        heads: CodebookHeads,
        context: Tensor,
        features: Tensor,
        valid: Tensor,
        mask: Tensor,
        temperature: float | None,
        distractors: Tensor | None,
    ) -> dict[str, Tensor]:
        vectors, logits, codes = heads.quantizer(self.normalised(features), temperature)
        predicted, quantized = heads.project_hid(context), heads.project_q(vectors)
        tokens = logits.detach().argmax(-1)
        used = F.one_hot(tokens, logits.shape[-1]).float()
        parts = {"perplexity": perplexity(used, valid).mean()}
        if self.objective == "paper":
            positions = valid if self.contrast == "all" else mask
            groups = heads.quantizer.groups
            parts["contrastive"] = contrastive_loss(
                predicted, quantized, positions, self.temperature
            )
            parts["reconstruction"] = reconstruction_loss(
                heads.token_logits(context),
                tokens.flatten(1),
                mask.repeat_interleave(groups, dim=1),
            )
            loss = parts["contrastive"] + parts["reconstruction"]  # eq. 3
        else:
            assert distractors is not None
            positions = mask
            parts["contrastive"] = distractor_loss(
                predicted, quantized, codes, mask, distractors, self.temperature
            )
            loss = parts["contrastive"]
        parts["diversity"] = diversity_loss(logits.softmax(-1), positions)
        return {"loss": loss + self.diversity_weight * parts["diversity"], **parts}

    def normalised(self, features: Tensor) -> Tensor:
        """What is quantized: stem features on the scale that the backbone names for it."""
        return self.backbone.normalised(features)

    def targets(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Projected likeliest codewords [B, T, P] and their codes [B, T, G], without noise."""
        assert isinstance(self.heads, CodebookHeads)
        vectors, _, codes = self.heads.quantizer(self.normalised(features))
        return self.heads.project_q(vectors), codes

    def save_heads(self, folder: Path) -> None:
        """Write the heads beside the backbone's own files."""
        state = {
            name: weight.cpu().contiguous() for name, weight in self.heads.state_dict().items()
        }
        meta = {"objective": self.objective, "contrast": self.contrast}
        save_file(state, folder / HEADS_FILE, metadata=meta)


def unit_losses(logits: Tensor, units: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """HuBERT's loss on masked frames, with the perplexity and accuracy of what is predicted."""
    loss = reconstruction_loss(logits, units, mask)
    correct = (logits.argmax(-1) == units) & mask
    return {
        "loss": loss,
        "reconstruction": loss,
        "accuracy": correct.sum() / mask.sum().clamp_min(1),
        "perplexity": perplexity(logits.detach().float().softmax(-1)[:, :, None], mask).mean(),
    }


def stored_heads(name: str) -> dict[str, Tensor]:
    """Heads in a backbone's own safetensors: a Wav2Vec2ForPreTraining's, or an adaptation's."""
    for file in (HEADS_FILE, "model.safetensors"):
        path = _checkpoint_file(name, file)
        if path is None:
            continue
        with safe_open(path, framework="pt") as weights:
            keys = [key for key in weights.keys() if key.startswith(HEAD_PREFIXES)]  # noqa: SIM118
            if keys:
                return {key: weights.get_tensor(key) for key in keys}
    return {}


def _checkpoint_file(name: str, file: str) -> Path | None:
    for folder in (WEIGHTS / name, Path(name)):
        if folder.is_dir():
            return folder / file if (folder / file).exists() else None
    path = transformers.utils.cached_file(
        name,
        file,
        local_files_only=True,  # load() has just fetched what the hub has
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return None if path is None else Path(path)
