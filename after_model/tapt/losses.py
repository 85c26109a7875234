"""The losses of task-adaptive pre-training and the random draws that they need.

    loss = contrastive_loss(context, quantized, mask) + reconstruction_loss(logits, tokens, mask)

Eq. 1-3 of Li et al. 2024, the distractor form of wav2vec 2.0 (Baevski et al. 2020), codebook
perplexity, span masks. Pure functions: no model, no state. B utterances, T frames, D dimensions,
G codebook groups of V codes; M is the largest number of marked frames of an utterance in the batch.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-5  # cosine similarities this close are those of one codeword


def contrastive_loss(
    context: Tensor, quantized: Tensor, mask: Tensor, temperature: float = 0.1
) -> Tensor:
    """Eq. 1 of Li et al. 2024, averaged over the positions that mask marks; scalar, nats.

    context, quantized [B, T, D]; mask [B, T] bool. The n positions of the equation are the marked
    positions of one utterance: each is a positive, and its denominator runs over all n of the same
    utterance, itself included. Unmarked positions are neither positives nor negatives, so a mask of
    the valid frames gives the equation as printed (all positions of the utterance, padding left
    out) and a mask of the masked frames the selection of wav2vec 2.0. Zero when nothing is marked.
    """
    return _mean(contrastive_terms(context, quantized, mask, temperature), mask)


def contrastive_terms(
    context: Tensor, quantized: Tensor, mask: Tensor, temperature: float = 0.1
) -> Tensor:
    """Each position's term of eq. 1, [B, T]; zero where mask marks nothing."""
    index, valid = marked(mask)
    logits = similarities(context, quantized, index, valid) / temperature
    terms = torch.logsumexp(logits, dim=-1) - logits.diagonal(dim1=1, dim2=2)
    return terms.new_zeros(mask.shape).scatter_add(1, index, terms.masked_fill(~valid, 0.0))


def reconstruction_loss(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Eq. 2 of Li et al. 2024: mean cross-entropy of the true token at marked positions; nats.

    logits [B, T, V]; tokens [B, T] int in 0..V-1; mask [B, T] bool. Zero when nothing is marked.
    """
    if not bool(mask.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(_full_precision(logits[mask]), tokens[mask].long())


def distractor_loss(
    context: Tensor,
    quantized: Tensor,
    codes: Tensor,
    mask: Tensor,
    distractors: Tensor,
    temperature: float = 0.1,
) -> Tensor:
    """The contrastive loss of wav2vec 2.0 (eq. 3 of Baevski et al. 2020); scalar, nats.

    context, quantized [B, T, D]; codes [B, T, G]; distractors [B, M, K] from sample_distractors:
    the j-th marked frame of an utterance is told from K others. A distractor with the positive's
    own codes is left out, as in the original. Utterances with one marked frame have no distractor
    and count zero.
    """
    index, valid = marked(mask)
    all_pairs = similarities(context, quantized, index, valid) / temperature
    positive = all_pairs.diagonal(dim1=1, dim2=2)
    chosen = torch.gather(codes, 1, index[..., None].expand(-1, -1, codes.shape[-1]))
    same = (chosen[:, :, None] == chosen[:, None]).all(-1)
    negative = all_pairs.masked_fill(same, _lowest(all_pairs)).gather(2, distractors)
    terms = torch.logsumexp(torch.cat([positive[..., None], negative], -1), -1) - positive
    return terms.masked_fill(~valid, 0.0).sum() / valid.sum().clamp_min(1)


def hits(context: Tensor, quantized: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How often the true quantized vector is the nearest of its utterance's marked positions.

    Returns three [B, M] tensors, zero beyond an utterance's marked frames: the hits (a hit shared
    with r - 1 positions of the same codeword counts 1 / r), what guessing would score (1 / n), and
    the most that those ties allow (1 / number of positions of the true codeword).
    """
    index, valid = marked(mask)
    scores = similarities(context, quantized, index, valid)
    best = scores.amax(-1, keepdim=True) - TIE
    hit = (scores.diagonal(dim1=1, dim2=2) >= best[..., 0]) / (scores >= best).sum(-1)
    own = similarities(quantized, quantized, index, valid) >= 1 - TIE
    chance = valid.sum(1, keepdim=True).clamp_min(1).reciprocal().expand(valid.shape)
    ceiling = own.sum(-1).clamp_min(1).reciprocal()
    return hit * valid, chance * valid, ceiling * valid


def similarities(context: Tensor, quantized: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    """Cosine similarity of marked contexts (rows) and marked codewords (columns), [B, M, M].

    Columns that are not valid hold the lowest finite number, so that a softmax gives them zero.
    """
    with torch.autocast(context.device.type, enabled=False):
        left = F.normalize(_take(_full_precision(context), index, valid), dim=-1)
        right = F.normalize(_take(_full_precision(quantized), index, valid), dim=-1)
        scores = left @ right.transpose(1, 2)
    return scores.masked_fill(~valid[:, None, :], _lowest(scores))


def marked(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the marked frames, first to last: index [B, M] and which of it are valid."""
    count = mask.sum(1)
    length = max(int(count.max()), 1) if len(count) else 1
    index = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)[:, :length]
    return index, torch.arange(length, device=mask.device)[None] < count[:, None]


def perplexity(probs: Tensor, mask: Tensor) -> Tensor:
    """Perplexity exp(H) of the mean code distribution over marked frames, per group: [G].

    probs [B, T, G, V], soft or one-hot; 1 when a single code is used, V when all are used equally.
    """
    weight = mask[..., None, None].to(probs.dtype)
    mean = (probs * weight).sum((0, 1)) / weight.sum().clamp_min(1)
    return torch.exp(-torch.xlogy(mean, mean).sum(-1))


def diversity_loss(probs: Tensor, mask: Tensor) -> Tensor:
    """(GV - sum of perplexities) / GV, in [0, 1): eq. 4 of Baevski et al. 2020 as implemented."""
    codes = probs.shape[2] * probs.shape[3]
    return (codes - perplexity(probs, mask).sum()) / codes


def sample_distractors(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """For each marked frame, `count` other marked frames of its utterance: int64 [B, M, count].

    Frames are named by their rank among the utterance's marked ones (0 is the first); drawn with
    replacement, never the frame itself. Rows beyond an utterance's marked frames, and utterances
    with a single one, hold rank 0.
    """
    marks = mask.sum(1)
    ranks = np.arange(max(int(marks.max(initial=0)), 1))
    others = np.maximum(marks - 1, 1)[:, None, None]
    drawn = np.floor(rng.random((len(mask), len(ranks), count)) * others).astype(np.int64)
    drawn += drawn >= ranks[:, None]
    usable = (ranks < marks[:, None]) & (marks > 1)[:, None]
    return drawn * usable[..., None]


def _mean(terms: Tensor, mask: Tensor) -> Tensor:
    return terms.sum() / mask.sum().clamp_min(1)


def _take(values: Tensor, index: Tensor, valid: Tensor) -> Tensor:
    taken = torch.gather(values, 1, index[..., None].expand(-1, -1, values.shape[-1]))
    return taken.masked_fill(~valid[..., None], 0.0)


def _full_precision(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _lowest(values: Tensor) -> float:
    return torch.finfo(values.dtype).min
