"""What only makes a backbone faster on a CPU; results are the same to rounding (1e-5).

Nothing here is needed to understand the method: with `enabled(False)` backbones run transformers'
own modules on padded batches, as they always do on a GPU, and give the same numbers.

    with kernels.enabled(False): ...          # everything by transformers' modules
    with backbone.fixed_transformer(): ...    # weights laid out once for all batches of a pool

What costs time on a CPU and shouldn't, and which file does away with it:

padding       A batch of recordings of many lengths computes frames that nobody hears. `ragged`
              lays the frames of all recordings one after the other: what acts on single frames is
              one product over all that count, attention sees a recording at a time. EmoDB in
              batches of 8,000 padded frames: nothing is computed twice, no mask is needed.
preparation   oneDNN plans a product or convolution anew for every size it meets, and recordings
              have a size each. `narrow_cnn` makes the CNN of small models from products of few
              sizes; `ragged` fills its batches up to a multiple of 32 frames.
layout        Weights have an order in memory that the processor multiplies faster. `onednn` makes
              a copy in that order, kept while fixed_stem() or fixed_transformer() is open; where
              gradients are wanted it is not looked at, since weights may be others by then.
activation    GELU on a result that is still in the cache costs next to nothing: `onednn` has it
              done with the product.

What each is worth depends on model and machine: `python -m benchmarks scoring` measures them.

Who uses it: `Backbone.encode_cnn` and `Backbone.encode` ask `suits()` of the kernel and call it, or
go on without. Kernels keep nothing on modules; laid out weights are in `onednn`'s own table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_enabled = True


def available() -> bool:
    """Whether kernels are used where they suit."""
    return _enabled


@contextlib.contextmanager
def enabled(on: bool) -> Iterator[None]:
    """Within it kernels are used, or not, by all threads of the process."""
    global _enabled
    before, _enabled = _enabled, on
    try:
        yield
    finally:
        _enabled = before
