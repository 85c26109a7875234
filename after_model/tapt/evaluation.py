"""What an adapted model knows: accuracy on held-out audio, and how much an utterance surprises it.

held_out_accuracy(model, store, held_out)    # HeldOut(accuracy=..., chance=..., ceiling=...)
surprisal(model, store, pool)                # [N, S], what ALPS clusters (eq. 7)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from after_model.audio import Utterance
from after_model.backbone import frame_mask
from after_model.features import FeatureStore
from after_model.features.batching import collate, length_batches, read_ahead
from after_model.masking import span_mask
from after_model.progress import Progress, silent
from after_model.tapt.config import HeldOut, TaptError
from after_model.tapt.losses import contrastive_terms, hits, perplexity
from after_model.tapt.objectives import CodebookHeads, TaptModel, UnitHeads
from after_model.tapt.units import Units

MAX_FRAMES = 4_000  # padded frames a batch


def held_out_accuracy(
    model: TaptModel,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    mask_share: float = 0.15,
    mask_length: int = 10,
    seed: int = 0,
    units: Units | None = None,
) -> HeldOut:
    """How often masked frames of unseen audio are recognised (HeldOut says what counts as a hit).

    The same seed masks the same frames whatever the model, so that values can be compared; two
    models are comparable as far as their quantizers are. units: needed for "hubert". Raises
    TaptError without any utterance.
    """
    if not utterances:
        raise TaptError("held-out accuracy needs at least one utterance")
    lengths = store.frames(utterances)
    rng = np.random.default_rng(seed)
    masks = span_mask(lengths, int(lengths.max()), mask_share, mask_length, rng)
    rows: list[Tensor] = []  # [P, 3] a batch: hit, chance, ceiling
    usage: list[Tensor] = []
    with torch.inference_mode():
        for batch, features, frames in _batches(model, store, utterances):
            mask = torch.from_numpy(masks[batch, : features.shape[1]]).to(features.device)
            context = model.backbone(features, frames, time_mask=mask)
            if isinstance(model.heads, UnitHeads):
                target = _padded_units(units, utterances, batch, features)
                correct = (model.heads(context).argmax(-1) == target)[mask]
                rows.append(torch.stack([correct, correct, correct.new_ones(len(correct))], 1))
                usage.append(target[mask][:, None])
                continue
            quantized, codes = model.targets(features)
            found = hits(model.heads.project_hid(context), quantized, mask)
            valid = found[1] > 0
            rows.append(torch.stack([value[valid] for value in found], 1))
            usage.append(codes[mask])
    accuracy, chance, ceiling = torch.cat(rows).double().mean(0).tolist()
    codes = torch.cat(usage)
    used = F.one_hot(codes).float()[None]
    if isinstance(model.heads, UnitHeads):
        chance = float(used.mean(1).amax())  # guessing the commonest unit
    everywhere = torch.ones(used.shape[:2], dtype=torch.bool, device=used.device)
    spread = float(perplexity(used, everywhere).mean())
    return HeldOut(accuracy, chance, ceiling, perplexity=spread, positions=len(codes))


def frame_surprisal(
    model: TaptModel,
    store: FeatureStore,
    utterances: Sequence[Utterance],
    *,
    size: int = 64,
    units: Units | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """Surprisal embeddings, float32 [N, size]: the pre-training loss of each frame over time.

    The term of eq. 1 plus that of eq. 2 ("wav2vec2": eq. 1 alone; "hubert": the cross-entropy of
    the units) at every frame of the unmasked input, nats, averaged into `size` equal parts of the
    utterance. Not normalised. No randomness and no dependence on batch mates. units: for "hubert".
    """
    embeddings = np.zeros((len(utterances), size), dtype=np.float32)
    done = 0
    with torch.inference_mode():
        for batch, features, frames in _batches(model, store, utterances):
            valid = frame_mask(frames, features.shape[1])
            context = model.backbone(features, frames)
            if isinstance(model.heads, UnitHeads):
                target = _padded_units(units, utterances, batch, features)
                terms = F.cross_entropy(
                    model.heads(context).transpose(1, 2), target, reduction="none"
                )
            else:
                terms = _codebook_terms(model, model.heads, features, context, valid)
            for row, index in enumerate(batch):
                own = terms[row, : int(frames[row])]
                embeddings[index] = F.adaptive_avg_pool1d(own[None], size)[0].cpu().numpy()
            done += len(batch)
            progress("surprisal", done, len(utterances))
    return embeddings


def _codebook_terms(
    model: TaptModel, heads: CodebookHeads, features: Tensor, context: Tensor, valid: Tensor
) -> Tensor:
    quantized, codes = model.targets(features)
    terms = contrastive_terms(heads.project_hid(context), quantized, valid, model.temperature)
    if heads.token_head is None:
        return terms
    logits = heads.token_logits(context)
    entropy = F.cross_entropy(logits.transpose(1, 2), codes.flatten(1), reduction="none")
    return terms + entropy.unflatten(1, (-1, heads.quantizer.groups)).mean(-1)


def _batches(
    model: TaptModel, store: FeatureStore, utterances: Sequence[Utterance]
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Batches on the model's device: indices, features [B, T, D], frames [B]. Eval mode."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    batches = length_batches(store.frames(utterances), max_frames=MAX_FRAMES)
    try:
        for batch, (features, frames) in read_ahead(
            lambda batch: (batch, collate(store, utterances, batch)), batches
        ):
            yield batch, features.to(device), frames.to(device)
    finally:
        model.train(training)


def _padded_units(
    units: Units | None, utterances: Sequence[Utterance], batch: np.ndarray, features: Tensor
) -> Tensor:
    if units is None:
        raise TaptError('objective "hubert" needs units: pass tapt.load_units(folder)')
    target = torch.zeros(features.shape[:2], dtype=torch.long)
    for row, index in enumerate(batch):
        own = torch.from_numpy(units.of(utterances[index]))
        target[row, : len(own)] = own
    return target.to(features.device)
