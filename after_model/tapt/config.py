"""Settings and results of task-adaptive pre-training (after_model.tapt), and how it can fail."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from after_model.device import PRECISIONS

OBJECTIVES = ("paper", "wav2vec2", "hubert")

MASK_SHARE = {"paper": 0.15, "wav2vec2": 0.49, "hubert": 0.20}
"""Share of masked frames: the paper's for wav2vec 2.0, Baevski et al.'s, the paper's for HuBERT."""

SMALL = 20_000_000  # parameters

DIVERSITY_WEIGHT = {"paper": 0.0, "wav2vec2": 0.1, "hubert": 0.0}


class TaptError(ValueError):
    """An adaptation that cannot be made as asked; the message names the cause and the fix."""


class TaptCollapse(RuntimeError):
    """Training went where nothing is learned: one codeword for all frames, or a loss of NaN."""


@dataclass(frozen=True)
class TaptConfig:
    """How to adapt. The defaults suit after-tiny on half an hour of speech and one CPU core.

    objective: "paper", "wav2vec2", "hubert" (after_model.tapt.objectives says what they are), or
        "auto": "paper" for wav2vec 2.0 and Whisper, "hubert" for the other families.
    epochs: passes over the pool; max_steps, if set, is the number of optimizer steps instead.
    learning_rate: of the backbone, its codebook and heads that came with it (None: 5e-5 below
        20 million parameters, else 1e-4 as in the published code); head_learning_rate: of heads
        that start anew. More learns the objective faster and forgets more: 3 epochs on EmoDB with
        5e-4 leave after-tiny's frozen last layer at UA 0.69 instead of 0.74 (logistic regression).
        schedule: a name of transformers.get_scheduler; warmup_share: of all steps.
    batch_seconds: audio a batch and process, padding included; accumulation: batches a step.
    train_cnn: False keeps the CNN frozen and reads its output from the FeatureStore; True trains
        everything from the waveforms, which is slower and makes the store's features stale.
    train_backbone: False trains the heads and the codebook only and leaves the backbone as it is:
        the control that says how much of the held-out accuracy is the backbone's.
    mask_share: of the frames, exact in expectation (None: MASK_SHARE); mask_length: frames a span.
    contrast: positions of eq. 1 under "paper", "all" valid frames as printed or the "masked" ones.
    diversity_weight: of the codebook diversity loss (None: DIVERSITY_WEIGHT). Eq. 3 has none, and
        needs none here: after 3 epochs on EmoDB (after-tiny, 8 speakers, learning_rate 5e-4) the
        codebook's perplexity is 74 of 160 without and 80 with 0.1, held-out accuracy 0.123 and
        0.120, chance 0.048.
    gumbel_decay: temperature max(gumbel_end, gumbel_start * decay^step) as in wav2vec 2.0, whose
        0.999995 is made for 400,000 steps; None reaches gumbel_end with the last step.
    units, unit_layer: k-means units of "hubert" and the layer they are clustered from (None: the
        middle one).
    save_every_s: seconds of training between the checkpoints from which a killed run resumes, of
        which the last is kept; save_every: steps instead, None for the time alone.
    collapse_perplexity, collapse_steps: after the warm-up, so many steps in a row with a lower
        perplexity (1 is a single codeword) raise TaptCollapse.
    """

    objective: str = "auto"
    epochs: int = 3
    max_steps: int | None = None
    learning_rate: float | None = None
    head_learning_rate: float = 2e-3
    weight_decay: float = 0.01
    schedule: str = "linear"
    warmup_share: float = 0.1
    batch_seconds: float = 20.0
    accumulation: int = 1
    max_grad_norm: float = 1.0
    precision: str = "auto"
    train_cnn: bool = False
    train_backbone: bool = True
    mask_share: float | None = None
    mask_length: int = 10
    contrast: str = "all"
    temperature: float = 0.1
    diversity_weight: float | None = None
    distractors: int = 100
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float | None = None
    units: int = 100
    unit_layer: int | None = None
    seed: int = 0
    save_every: int | None = None
    save_every_s: float = 600.0
    collapse_perplexity: float = 1.5
    collapse_steps: int = 20

    def __post_init__(self) -> None:
        _check(
            self.objective in ("auto", *OBJECTIVES), "objective", f"auto, {', '.join(OBJECTIVES)}"
        )
        _check(self.precision in PRECISIONS, "precision", ", ".join(PRECISIONS))
        _check(self.contrast in ("all", "masked"), "contrast", "all, masked")
        _check(self.mask_share is None or 0 < self.mask_share < 1, "mask_share", "0 < share < 1")
        _check(self.train_backbone or not self.train_cnn, "train_cnn", "no, without train_backbone")
        _check(0 <= self.warmup_share < 1, "warmup_share", "0 <= share < 1")
        positive = (
            "epochs",
            "head_learning_rate",
            "batch_seconds",
            "accumulation",
            "max_grad_norm",
            "mask_length",
            "temperature",
            "distractors",
            "gumbel_start",
            "gumbel_end",
            "units",
            "save_every_s",
            "collapse_steps",
        )
        for name in positive:
            _check(getattr(self, name) > 0, name, "above 0")
        _check(self.learning_rate is None or self.learning_rate > 0, "learning_rate", "above 0")
        _check(self.save_every is None or self.save_every > 0, "save_every", "above 0, or None")
        _check(self.max_steps is None or self.max_steps > 0, "max_steps", "above 0")

    def resolved(self, family: str, layers: int, parameters: int) -> TaptConfig:
        """The same with every "auto" and None that depends on the backbone filled in."""
        objective = self.objective
        if objective == "auto":
            objective = "paper" if family in ("wav2vec2", "whisper") else "hubert"
        share, weight, rate = self.mask_share, self.diversity_weight, self.learning_rate
        if rate is None:
            rate = 5e-5 if parameters < SMALL else 1e-4
        return replace(
            self,
            objective=objective,
            learning_rate=rate,
            mask_share=MASK_SHARE[objective] if share is None else share,
            diversity_weight=DIVERSITY_WEIGHT[objective] if weight is None else weight,
            unit_layer=max(1, layers // 2) if self.unit_layer is None else self.unit_layer,
        )

    def gumbel_temperature(self, step: int, steps: int) -> float:
        """Temperature of the Gumbel noise at a step (from 1) of `steps`."""
        decay = self.gumbel_decay
        if decay is None:
            decay = (self.gumbel_end / self.gumbel_start) ** (1 / steps)
        return max(self.gumbel_end, self.gumbel_start * decay**step)


@dataclass(frozen=True)
class HeldOut:
    """How well masked frames are recognised; accuracy, chance and ceiling are shares of them.

    Codebook objectives: a hit is a frame whose true quantized vector is the nearest to its context
    among the utterance's masked frames. Frames that share a codeword tie and share the hit, which
    limits what can be reached (ceiling) and makes a collapsed codebook score chance. "hubert": a
    hit is the right unit, chance the commonest one. perplexity: mean per codebook, or of the units.
    """

    accuracy: float
    chance: float
    ceiling: float
    perplexity: float
    positions: int


@dataclass(frozen=True)
class TaptReport:
    """What an adaptation did; `folder` holds the adapted backbone for backbone.load(folder).

    seconds: of training, earlier runs of a resumed one included; skipped: unreadable recordings,
    with the reason, those that became so on the way included; before, after: on the held-out
    utterances, None without any. Heads that start anew score chance before; then `before` says
    nothing about the backbone.
    """

    folder: Path
    objective: str
    steps: int
    utterances: int
    audio_seconds: float
    seconds: float
    loss: float
    perplexity: float
    masked_share: float
    precision: str
    fresh_heads: bool
    skipped: tuple[str, ...] = ()
    before: HeldOut | None = None
    after: HeldOut | None = None


def _check(fine: bool, field: str, allowed: str) -> None:
    if not fine:
        raise TaptError(f"TaptConfig.{field} must be: {allowed}")
