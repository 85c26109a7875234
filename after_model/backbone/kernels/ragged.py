"""The transformer on a CPU without padding: the frames of a batch one after the other.

    if ragged.suits(model, hidden.device):
        context = ragged.encode(model.encoder, hidden, frames)

What acts on single frames (most of the work) sees all the frames that count as one matrix and no
other; attention and the positional convolution see an utterance at a time, so that neither needs a
mask. WavLM, whose attention has a position bias, and GPUs, which want few large operations, keep
transformers' own encoder.

    with ragged.fixed_weights(model): ...

prepares the weights once for all the batches of a pool, as long as nothing changes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.backbone.kernels import onednn
from after_model.device import single_threaded

ENCODERS = ("wav2vec2", "hubert", "data2vec-audio")
NARROW = 16  # channels a group, up to which the positional convolution is a product of matrices
STEP = 32  # frames that a batch is a multiple of: oneDNN prepares products anew for every size
BLOCK = 8  # frames that one row of this product gives


def suits(model: Any, device: torch.device) -> bool:
    """Whether encode() computes what the model's encoder does, and sooner."""
    config = model.config
    return (
        device.type == "cpu"
        and config.model_type in ENCODERS
        and getattr(config, "adapter_attn_dim", None) is None
        and not model.encoder.gradient_checkpointing
    )


@dataclass(frozen=True)
class _Fixed:
    """Weights in the form that the processor multiplies fastest, by the layer that they are of."""

    linear: dict[nn.Module, Tensor] = field(default_factory=dict)
    convolution: dict[nn.Module, Tensor] = field(default_factory=dict)


@contextlib.contextmanager
def fixed_weights(model: Any) -> Iterator[None]:
    """Within it the weights don't change and nothing is trained; float32.

    A sixth faster, for a copy of the transformer's weights.
    """
    encoder = model.encoder
    if model.config.model_type not in ENCODERS or not onednn.AVAILABLE:
        yield
        return
    fixed = _Fixed()
    with torch.inference_mode(), single_threaded():
        for module in encoder.layers.modules():
            if isinstance(module, nn.Linear):
                fixed.linear[module] = onednn.lay_out(module.weight)
        for module in encoder.pos_conv_embed.modules():
            if isinstance(module, nn.Conv1d) and _narrow(module):
                fixed.convolution[module] = _block_weight(module.weight, module.groups)
    encoder.fixed_weights = fixed
    try:
        yield
    finally:
        del encoder.fixed_weights


def _fixed(encoder: Any) -> _Fixed:
    """Empty while gradients are wanted: the weights may be others by now."""
    nothing = _Fixed()
    return nothing if torch.is_grad_enabled() else getattr(encoder, "fixed_weights", nothing)


def encode(encoder: Any, hidden: Tensor, frames: Tensor, layer: int | None = None) -> Tensor:
    """Backbone.encode: hidden [B, T, H], frames [B] -> context [B, T, H], zeros on padding."""
    batch, length = hidden.shape[:2]
    lengths = frames.tolist()
    flat = hidden.flatten(0, 1)
    rows = None
    if min(lengths) < length:
        rows = _positions([i * length for i in range(batch)], lengths)
        flat = flat.index_select(0, rows)
    count = len(flat)
    if _fixed(encoder).linear and (more := -count % STEP):
        flat, lengths = F.pad(flat, (0, 0, 0, more)), [*lengths, more]
    flat = _layers(encoder, flat, lengths, layer)[:count]
    if rows is not None:
        flat = flat.new_zeros(batch * length, flat.shape[1]).index_copy(0, rows, flat)
    return flat.unflatten(0, (batch, length))


def _layers(encoder: Any, hidden: Tensor, lengths: list[int], last: int | None) -> Tensor:
    """[F, H] -> [F, H]; last: of so many layers, without the norm after all of them."""
    config, fixed = encoder.config, _fixed(encoder)
    norm_first = getattr(config, "do_stable_layer_norm", False)
    hidden = hidden + _positional(encoder.pos_conv_embed, hidden, lengths, fixed)
    if not norm_first:
        hidden = encoder.layer_norm(hidden)
    hidden = encoder.dropout(hidden)
    for layer in encoder.layers[:last]:
        # layer drop, as transformers draws it
        if encoder.training and config.layerdrop > 0 and torch.rand([]) < config.layerdrop:
            continue
        if norm_first:
            heard = _attend(layer.attention, layer.layer_norm(hidden), lengths, fixed)
            hidden = hidden + layer.dropout(heard)
            normed = layer.final_layer_norm(hidden)
            hidden = hidden + _feed_forward(layer.feed_forward, normed, fixed)
        else:
            heard = _attend(layer.attention, hidden, lengths, fixed)
            hidden = layer.layer_norm(hidden + layer.dropout(heard))
            thought = _feed_forward(layer.feed_forward, hidden, fixed)
            hidden = layer.final_layer_norm(hidden + thought)
    return encoder.layer_norm(hidden) if norm_first and last is None else hidden


def _attend(attention: Any, hidden: Tensor, lengths: list[int], fixed: _Fixed) -> Tensor:
    """Self-attention within each utterance, [F, H] -> [F, H]."""
    heads = (attention.num_heads, attention.head_dim)
    queries, keys, values = (
        # a CPU's fused attention takes twice as long in bf16, most of it going backwards
        _at_least_float32(_linear(project, hidden, fixed)).unflatten(-1, heads).split(lengths)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    dropout = attention.dropout if attention.training else 0.0
    found = []
    for parts in zip(queries, keys, values, strict=True):
        query, key, value = (part.transpose(0, 1)[None] for part in parts)  # [1, heads, T, D]
        with torch.autocast("cpu", enabled=False):
            own = F.scaled_dot_product_attention(
                query, key, value, dropout_p=dropout, scale=attention.scaling
            )
        found.append(own[0].transpose(0, 1).flatten(1))
    return _linear(attention.out_proj, torch.cat(found), fixed)


def _feed_forward(block: Any, hidden: Tensor, fixed: _Fixed) -> Tensor:
    hidden = _linear(block.intermediate_dense, hidden, fixed, block.intermediate_act_fn)
    hidden = _linear(block.output_dense, block.intermediate_dropout(hidden), fixed)
    return block.output_dropout(hidden)


def _linear(
    layer: Any, hidden: Tensor, fixed: _Fixed, then: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    if layer not in fixed.linear:
        hidden = layer(hidden)
        return hidden if then is None else then(hidden)
    return onednn.linear(hidden, fixed.linear[layer], layer.bias, then)


# --- positional convolution ----------------------------------------------------------------------


def _positional(embedding: Any, hidden: Tensor, lengths: list[int], fixed: _Fixed) -> Tensor:
    """[F, H] -> [F, H]."""
    for part in getattr(embedding, "layers", [embedding]):
        if getattr(part, "batch_norm", None) is not None:
            hidden = part.batch_norm(hidden)
        hidden = _convolve(part.conv, hidden, lengths, fixed)
        if hasattr(part, "layer_norm"):
            hidden = part.layer_norm(hidden)
        hidden = part.activation(hidden)
    return hidden


def _convolve(conv: nn.Conv1d, hidden: Tensor, lengths: list[int], fixed: _Fixed) -> Tensor:
    """A grouped convolution over each utterance, as long as its input: [F, H] -> [F, H]."""
    if _narrow(conv):
        weight = fixed.convolution.get(conv)
        if weight is None:
            weight = _block_weight(conv.weight, conv.groups)
        return _convolve_narrow(conv, weight, hidden, lengths)
    parts = [conv(part.T[None])[0, :, : len(part)].T for part in hidden.split(lengths)]
    return torch.cat(parts)


def _narrow(conv: nn.Conv1d) -> bool:
    return conv.in_channels // conv.groups <= NARROW


def _convolve_narrow(conv: nn.Conv1d, weight: Tensor, hidden: Tensor, lengths: list[int]) -> Tensor:
    """The same as products: BLOCK frames of a group's output are one product of all that they hear.

    A convolution of few channels is a product of a narrow matrix, which uses a third of the
    processor. This one is BLOCK times as wide, for (kernel + BLOCK - 1) / kernel times the work.
    """
    groups, kernel, hidden = conv.groups, conv.kernel_size[0], _at_least_float32(hidden)
    width = conv.in_channels // groups
    heard = kernel + BLOCK - 1
    # utterances one after the other, zeros before, between and after: a block hears only its own
    gap = -(-(kernel // 2) // BLOCK) * BLOCK
    starts, blocks, end = [], [], 0
    for length in lengths:
        count = -(-length // BLOCK)
        starts.append(end)
        blocks.append(torch.arange(end // BLOCK, end // BLOCK + count))
        end += count * BLOCK + gap
    rows = _positions([start + kernel // 2 for start in starts], lengths)
    spread = hidden.new_zeros(end + heard, groups, width)
    spread = spread.index_copy(0, rows, hidden.unflatten(1, (groups, width)))
    windows = spread.transpose(0, 1).flatten(1).unfold(1, heard * width, BLOCK * width)
    windows = windows.index_select(1, torch.cat(blocks))  # [groups, blocks, heard * width]
    result = windows @ weight  # [groups, blocks, BLOCK * width]
    result = result.unflatten(2, (BLOCK, -1)).permute(1, 2, 0, 3).flatten(2).flatten(0, 1)
    firsts, first = [], 0
    for length in lengths:
        firsts.append(first)
        first += -(-length // BLOCK) * BLOCK
    result = result.index_select(0, _positions(firsts, lengths))
    return result if conv.bias is None else result + conv.bias


def _block_weight(weight: Tensor, groups: int) -> Tensor:
    """[H, width, kernel] -> [groups, (kernel + BLOCK - 1) * width, BLOCK * width]."""
    taps = weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1)  # [groups, kernel, in, out]
    shifted = [F.pad(taps, (0, 0, 0, 0, at, BLOCK - 1 - at)) for at in range(BLOCK)]
    return torch.stack(shifted, 3).flatten(3).flatten(1, 2)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _positions(starts: list[int], lengths: list[int]) -> Tensor:
    """start, start + 1, ... of each, in one tensor [F]."""
    return torch.cat([torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
