"""The transformer on a CPU without padding: the frames of a batch one after the other.

    states = ragged.encode(hidden, frames, lambda flat, lengths: wav2vec2(encoder, flat, ...))

What acts on single frames (most of the work) sees all the frames that count as one matrix and no
other; attention and the positional convolution see an utterance at a time, so that neither needs a
mask. WavLM, whose attention has a position bias, and GPUs, which want few large operations, keep
transformers' own layers on padded batches.

    with ragged.fixed_weights(encoder): ...

prepares the weights once for all the batches of a pool, as long as nothing changes them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from after_model.backbone import kernels
from after_model.backbone.kernels import onednn
from after_model.device import single_threaded

NARROW = 16  # channels a group, up to which the positional convolution is a product of matrices
STEP = 32  # frames that a batch is a multiple of: oneDNN prepares products anew for every size
BLOCK = 8  # frames that one row of this product gives


def suits(encoder: Any, device: torch.device) -> bool:
    """Whether encode() is to be used there; it can't checkpoint gradients."""
    return device.type == "cpu" and not encoder.gradient_checkpointing and kernels.available()


@contextlib.contextmanager
def fixed_weights(encoder: Any) -> Iterator[None]:
    """Within it the weights don't change and nothing is trained; float32.

    A sixth faster, for a copy of the transformer's weights.
    """
    if not onednn.AVAILABLE:
        yield
        return
    with torch.inference_mode(), single_threaded():
        laid_out = onednn.lay_out_all(encoder.layers)
        for module in getattr(encoder, "pos_conv_embed", encoder.layers).modules():
            if isinstance(module, nn.Conv1d) and _narrow(module):
                laid_out[module] = _block_weight(module.weight, module.groups)
    with onednn.keep(laid_out):
        yield


def encode(
    hidden: Tensor, frames: Tensor, layers: Callable[[Tensor, list[int]], list[Tensor]]
) -> list[Tensor]:
    """Backbone.encode: hidden [B, T, H], frames [B] -> states [B, T, H], zeros on padding.

    layers: flat frames [F, H] of utterances that have so many each -> states [F, H].
    """
    batch, length = hidden.shape[:2]
    lengths = frames.tolist()
    flat = hidden.flatten(0, 1)
    rows = None
    if min(lengths) < length:
        rows = positions([i * length for i in range(batch)], lengths)
        flat = flat.index_select(0, rows)
    count = len(flat)
    if onednn.keeping() and (more := -count % STEP):
        flat, lengths = F.pad(flat, (0, 0, 0, more)), [*lengths, more]

    def spread(state: Tensor) -> Tensor:
        state = state[:count]
        if rows is not None:
            state = state.new_zeros(batch * length, state.shape[1]).index_copy(0, rows, state)
        return state.unflatten(0, (batch, length))

    return [spread(state) for state in layers(flat, lengths)]


def wav2vec2(
    encoder: Any, hidden: Tensor, lengths: list[int], wanted: Sequence[int]
) -> list[Tensor]:
    """wav2vec 2.0's layers, and HuBERT's and data2vec's: [F, H] -> the wanted states [F, H]."""
    config = encoder.config
    norm_first = getattr(config, "do_stable_layer_norm", False)
    hidden = hidden + _positional(encoder.pos_conv_embed, hidden, lengths)
    if not norm_first:
        hidden = encoder.layer_norm(hidden)
    hidden = encoder.dropout(hidden)
    found = {0: hidden}
    for number, layer in enumerate(encoder.layers[: max(wanted)], start=1):
        # layer drop, as transformers draws it
        if encoder.training and config.layerdrop > 0 and torch.rand([]) < config.layerdrop:
            pass
        elif norm_first:
            heard = attend(layer.attention, layer.layer_norm(hidden), lengths)
            hidden = hidden + layer.dropout(heard)
            normed = layer.final_layer_norm(hidden)
            hidden = hidden + _feed_forward(layer.feed_forward, normed)
        else:
            heard = attend(layer.attention, hidden, lengths)
            hidden = layer.layer_norm(hidden + layer.dropout(heard))
            thought = _feed_forward(layer.feed_forward, hidden)
            hidden = layer.final_layer_norm(hidden + thought)
        found[number] = hidden
    last = len(encoder.layers)
    if norm_first and last in found:
        found[last] = encoder.layer_norm(hidden)
    return [found[state] for state in wanted]


def whisper(
    encoder: Any, hidden: Tensor, lengths: list[int], wanted: Sequence[int]
) -> list[Tensor]:
    """Whisper's layers, positions added already: [F, H] -> the wanted states [F, H]."""
    dropout, training = encoder.config.dropout, encoder.training
    hidden = F.dropout(hidden, dropout, training)
    found = {0: hidden}
    for number, layer in enumerate(encoder.layers[: max(wanted)], start=1):
        if not (training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop):
            heard = attend(layer.self_attn, layer.self_attn_layer_norm(hidden), lengths)
            hidden = hidden + F.dropout(heard, dropout, training)
            inner = onednn.apply(layer.fc1, layer.final_layer_norm(hidden), layer.activation_fn)
            inner = F.dropout(inner, layer.activation_dropout, training)
            hidden = hidden + F.dropout(onednn.apply(layer.fc2, inner), dropout, training)
        found[number] = hidden
    last = len(encoder.layers)
    if last in found:
        found[last] = encoder.layer_norm(hidden)
    return [found[state] for state in wanted]


def attend(attention: Any, hidden: Tensor, lengths: list[int]) -> Tensor:
    """Self-attention within each utterance, [F, H] -> [F, H]."""
    heads = (attention.num_heads, attention.head_dim)
    queries, keys, values = (
        # a CPU's fused attention takes twice as long in bf16, most of it going backwards
        _at_least_float32(onednn.apply(project, hidden)).unflatten(-1, heads).split(lengths)
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
    return onednn.apply(attention.out_proj, torch.cat(found))


def _feed_forward(block: Any, hidden: Tensor) -> Tensor:
    hidden = onednn.apply(block.intermediate_dense, hidden, block.intermediate_act_fn)
    hidden = onednn.apply(block.output_dense, block.intermediate_dropout(hidden))
    return block.output_dropout(hidden)


# --- positional convolution ----------------------------------------------------------------------


def _positional(embedding: Any, hidden: Tensor, lengths: list[int]) -> Tensor:
    """[F, H] -> [F, H]."""
    for part in getattr(embedding, "layers", [embedding]):
        if getattr(part, "batch_norm", None) is not None:
            hidden = part.batch_norm(hidden)
        hidden = _convolve(part.conv, hidden, lengths)
        if hasattr(part, "layer_norm"):
            hidden = part.layer_norm(hidden)
        hidden = part.activation(hidden)
    return hidden


def _convolve(conv: nn.Conv1d, hidden: Tensor, lengths: list[int]) -> Tensor:
    """A grouped convolution over each utterance, as long as its input: [F, H] -> [F, H]."""
    if _narrow(conv):
        weight = onednn.kept(conv)
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
    rows = positions([start + kernel // 2 for start in starts], lengths)
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
    result = result.index_select(0, positions(firsts, lengths))
    return result if conv.bias is None else result + conv.bias


def _block_weight(weight: Tensor, groups: int) -> Tensor:
    """[H, width, kernel] -> [groups, (kernel + BLOCK - 1) * width, BLOCK * width]."""
    taps = weight.unflatten(0, (groups, -1)).permute(0, 3, 2, 1)  # [groups, kernel, in, out]
    shifted = [F.pad(taps, (0, 0, 0, 0, at, BLOCK - 1 - at)) for at in range(BLOCK)]
    return torch.stack(shifted, 3).flatten(3).flatten(1, 2)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def positions(starts: list[int], lengths: list[int]) -> Tensor:
    """start, start + 1, ... of each, in one tensor [F]."""
    return torch.cat([torch.arange(s, s + n) for s, n in zip(starts, lengths, strict=True)])
