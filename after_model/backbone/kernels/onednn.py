"""Matrix products by oneDNN, with weights laid out for it: a tenth faster than torch's own.

    laid_out = onednn.lay_out(weight)                    # once, [O, I]
    result = onednn.linear(hidden, laid_out, bias, gelu) # [R, I] -> [R, O]

GELU is applied where a product still is in the cache, which makes it cost next to nothing. Without
gradients and in float32 only. PyTorch's compiler makes the same calls; where PyTorch is built
without oneDNN, its own products are used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

ROWS = 1024  # of a product, for which weights are laid out; others are right, too

AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

_kept: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


@contextlib.contextmanager
def keep(laid_out: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Within it kept() gives these weights, each for the module whose own it replaces."""
    _kept.update(laid_out)
    try:
        yield
    finally:
        for module in laid_out:
            _kept.pop(module, None)


def keeping() -> bool:
    """Whether kept() has any weights to give: then few sizes of products pay."""
    return bool(_kept) and not torch.is_grad_enabled()


def kept(module: nn.Module) -> Tensor | None:
    """A module's weight as keep() has it; None while gradients are wanted: it may be another."""
    return None if torch.is_grad_enabled() else _kept.get(module)


def lay_out(weight: Tensor) -> Tensor:
    """A copy of a weight [O, I] for linear()."""
    if not AVAILABLE:
        return weight
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), ROWS)


def lay_out_all(root: nn.Module) -> dict[nn.Module, Tensor]:
    """The weights of all linear layers below a module, for keep()."""
    return {m: lay_out(m.weight) for m in root.modules() if isinstance(m, nn.Linear)}


def linear(
    hidden: Tensor,
    laid_out: Tensor,
    bias: Tensor | None,
    then: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """hidden [R, I] -> [R, O] by a weight, laid out or not; then: applied to the result."""
    if not AVAILABLE:
        result = F.linear(hidden, laid_out, bias)
        return result if then is None else then(result)
    if isinstance(then, GELUActivation) and then.act is F.gelu:
        return torch.ops.mkldnn._linear_pointwise(hidden, laid_out, bias, "gelu", [], "none")
    result = torch.ops.mkldnn._linear_pointwise(hidden, laid_out, bias, "none", [], "")
    return result if then is None else then(result)


def apply(
    layer: nn.Linear, hidden: Tensor, then: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """layer(hidden) and then(), by the weight that is kept for it if one is."""
    laid_out = kept(layer)
    if laid_out is None:
        hidden = layer(hidden)
        return hidden if then is None else then(hidden)
    return linear(hidden, laid_out, layer.bias, then)
