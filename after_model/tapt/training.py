"""The training loop of task-adaptive pre-training: one process's part, resumable at any step.

Accelerate does mixed precision, accumulation, clipping and several GPUs. All processes see the
same logged numbers (they are averaged over processes), so they take every decision alike.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from torch import Tensor

from after_model.audio import AudioError, Utterance
from after_model.backbone import Backbone
from after_model.features import FeatureStore
from after_model.memory import Room, give_back
from after_model.progress import Progress
from after_model.tapt.batches import CODEBOOK, NOISE, UNITS, Batch, Feed, Step, torch_seed
from after_model.tapt.config import HeldOut, TaptCollapse, TaptConfig, TaptError, TaptReport
from after_model.tapt.evaluation import held_out_accuracy
from after_model.tapt.files import Folder, Plan
from after_model.tapt.objectives import TaptModel
from after_model.tapt.units import Units, compute_units, load_units, start_codebook

T = TypeVar("T")

STEPS_BETWEEN_TIDYING = 4


class Run:
    """An adaptation under way: model, optimizer, how far it is."""

    def __init__(
        self,
        backbone: Backbone,
        utterances: Sequence[Utterance],
        held_out: Sequence[Utterance],
        store: FeatureStore,
        files: Folder,
        config: TaptConfig,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self.store, self.files, self.config, self.accelerator = store, files, config, accelerator
        self._gather(utterances, held_out)
        self.units = self._units(backbone) if config.objective == "hubert" else None
        self.frame_seconds = backbone.frame_seconds
        self.feed = Feed(
            self.members,
            self.frames,
            store,
            config,
            self.units,
            frame_seconds=self.frame_seconds,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        self.steps = self.feed.steps
        model = TaptModel.from_config(
            copy.deepcopy(backbone),
            config,
            units=len(self.units.centres) if self.units else 0,
            # an earlier adaptation's units were other clusters
            reuse_heads=config.objective != "hubert",
        )
        self.fresh_heads = model.fresh
        checkpoint = files.load_checkpoint()
        if checkpoint is None and model.fresh_codebook:
            self._from_readable(
                lambda: start_codebook(model, store, self.utterances, self._rng(CODEBOOK))
            )
        self._prepare(model)
        self.step, self.seconds, self.heard = 0, 0.0, 0.0
        self.saved = time.monotonic()
        self.room = Room()
        self.before: HeldOut | None = None
        if checkpoint is not None:
            self._resume(*checkpoint)
        if accelerator.is_main_process:
            files.cut_log(self.step)

    # --- recordings ----------------------------------------------------------------------------

    def _gather(self, utterances: Sequence[Utterance], held_out: Sequence[Utterance]) -> None:
        """Encode what is there and match it with the plan, which the first run makes."""
        failures = self._encode([*utterances, *held_out])
        plan = self.files.plan()
        self.skipped = list(plan.skipped) if plan else []
        self.skipped += [why for why in failures.values() if why not in self.skipped]
        if plan is None:
            plan = self._plan(utterances, held_out, failures)
        there = {u.id: u for u in utterances if u.id not in failures}
        self.members: list[Utterance | None] = [there.get(i) for i in plan.utterances]
        given = {u.id for u in utterances}
        self.skipped += [f"{i}: no longer given" for i in plan.utterances if i not in given]
        self.frames = np.array(plan.frames, dtype=np.int64)
        planned = set(plan.held_out)
        self.held_out = [u for u in held_out if u.id in planned and u.id not in failures]
        self._check_recordings(len(utterances))

    def _encode(self, utterances: Sequence[Utterance]) -> dict[str, str]:
        """Features of all, each process a share; the unreadable ones by id, with the reason."""
        share = utterances[self.accelerator.process_index :: self.accelerator.num_processes]
        broken = {str(error.path): str(error) for error in self.store.fill(share, self.progress)}
        found = [(u.id, broken[str(u.path)]) for u in share if str(u.path) in broken]
        failures = dict(gather_object(found))
        return {u.id: failures[u.id] for u in utterances if u.id in failures}

    def _plan(
        self,
        utterances: Sequence[Utterance],
        held_out: Sequence[Utterance],
        failures: dict[str, str],
    ) -> Plan:
        """Written by the first process, read by all."""
        if self.accelerator.is_main_process:
            frames: dict[str, int] = {}
            for utterance in utterances:
                if utterance.id in failures:
                    continue
                try:
                    frames[utterance.id] = int(self.store.frames([utterance])[0])
                except AudioError as error:  # gone since it was encoded
                    self.skipped.append(str(error))
            kept = tuple(u.id for u in held_out if u.id not in failures)
            if frames:
                self.files.write_plan(
                    Plan(tuple(frames), tuple(frames.values()), kept, tuple(self.skipped))
                )
        self.accelerator.wait_for_everyone()
        return self.files.plan() or Plan((), ())

    @property
    def utterances(self) -> list[Utterance]:
        """Those of the plan that can be read, as far as is known."""
        return [u for u in self.members if u is not None]

    def _check_recordings(self, count: int) -> None:
        if not self.utterances:
            raise TaptError(
                f"none of the {count} recordings can be used to adapt"
                + "".join(f"; {reason}" for reason in self.skipped[:3])
            )

    def _from_readable(self, compute: Callable[[], T]) -> T:
        """compute(), anew without a recording that could not be read any more."""
        while True:
            try:
                return compute()
            except AudioError as error:
                path, count = str(error.path), len(self.utterances) + len(self.held_out)
                self.members = [
                    None if u is not None and str(u.path) == path else u for u in self.members
                ]
                self.held_out = [u for u in self.held_out if str(u.path) != path]
                if len(self.utterances) + len(self.held_out) == count:
                    raise
                self.skipped.append(str(error))
            self._check_recordings(count)

    # --- model ---------------------------------------------------------------------------------

    def _prepare(self, model: TaptModel) -> None:
        config = self.config
        model.backbone.requires_grad_(config.train_backbone)
        model.backbone.freeze_stem(not config.train_cnn)
        if self.accelerator.device.type == "cpu":
            model.backbone.drop_attention_dropout()  # a step of after-tiny is 1.3 x faster
        # A codebook has a start of its own (stored or k-means); at the heads' rate it shrinks.
        assert config.learning_rate is not None  # the configuration is a resolved one
        codebook = getattr(model.heads, "quantizer", None)
        settled = [] if codebook is None else list(codebook.parameters())
        settled += [p for p in model.backbone.parameters() if p.requires_grad]
        heads = [p for name, p in model.heads.named_parameters() if "quantizer" not in name]
        head_rate = config.head_learning_rate if model.fresh else config.learning_rate
        groups = [
            {"params": settled, "lr": config.learning_rate},
            {"params": heads, "lr": head_rate},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True)
        self.scheduler = transformers.get_scheduler(
            config.schedule, optimizer, round(config.warmup_share * self.steps), self.steps
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.bare: TaptModel = self.accelerator.unwrap_model(self.model)

    def _units(self, backbone: Backbone) -> Units:
        """Units from the unadapted backbone: computed by the first process, read by the others."""
        if self.accelerator.is_main_process and not self.files.units.exists():
            assert self.config.unit_layer is not None
            layer, unadapted = self.config.unit_layer, copy.deepcopy(backbone)
            unadapted.to(self.accelerator.device)
            units = self._from_readable(
                lambda: compute_units(
                    unadapted,
                    self.store,
                    self.utterances,
                    count=self.config.units,
                    layer=layer,
                    rng=self._rng(UNITS),
                    held_out=self.held_out,
                    progress=self.progress,
                )
            )
            self.files.write_units(units)
        self.accelerator.wait_for_everyone()
        return load_units(self.files.units)

    # --- steps ---------------------------------------------------------------------------------

    def train(self) -> None:
        """All steps that are left, then the folder's final files."""
        if self.step == 0:
            self.before = self._measure()
        low = 0
        for step, batches in self.feed.read(after=self.step):
            started = time.perf_counter()
            values, heard = self._update(step, batches)
            spent = time.perf_counter() - started
            self.step = step.number
            self.seconds += spent
            self.heard += heard
            values["audio_s_per_s"] = heard / spent
            if self.accelerator.is_main_process:
                self.files.log({"step": step.number, "epoch": step.epoch, **values})
            low = self._check(values, low)
            self.progress("tapt", step.number, self.steps)
            if self.accelerator.is_main_process and self._due():
                self._save()
            if self.accelerator.device.type == "cpu" and step.number % STEPS_BETWEEN_TIDYING == 0:
                give_back()
        self._finish()

    def _update(self, step: Step, batches: list[Batch]) -> tuple[dict[str, float], float]:
        """One optimizer step: what to log, averaged over processes, and the seconds of audio."""
        config, accelerator = self.config, self.accelerator
        temperature = config.gumbel_temperature(step.number, self.steps)
        rate = self.optimizer.param_groups[0]["lr"]
        self.model.train()
        largest = max(batches, key=lambda batch: len(batch.lengths) * batch.lengths.max())
        if accelerator.num_processes == 1:
            sums = self.room.fit(
                largest.lengths, lambda _: self._gradients(batches, step.number, temperature)
            )
        else:  # one process alone cannot repeat a step
            sums = self._gradients(batches, step.number, temperature)
        parameters = self.model.parameters()
        grad_norm = float(accelerator.clip_grad_norm_(parameters, config.max_grad_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.scheduler.step()
        valid, masked = sum(b.valid for b in batches), sum(b.masked for b in batches)
        counts = torch.tensor([float(valid), float(masked)], device=accelerator.device)
        packed = torch.cat([torch.stack(list(sums.values())), counts])
        *means, valid_mean, masked_mean = accelerator.reduce(packed, "mean").tolist()
        values = dict(zip(sums, means, strict=True))
        values["grad_norm"] = grad_norm
        values["masked_share"] = masked_mean / valid_mean
        values["learning_rate"] = rate
        if config.objective != "hubert":
            values["gumbel_temperature"] = temperature
        return values, valid_mean * accelerator.num_processes * self.frame_seconds

    def _gradients(
        self, batches: list[Batch], number: int, temperature: float
    ) -> dict[str, Tensor]:
        """Add up the gradients of one step; the losses, averaged over its batches.

        A batch too large for the memory is computed in parts, each weighted by its masked frames
        (exact but for eq. 1 over all frames, whose parts would weigh by all of theirs).
        """
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(torch_seed(config.seed, NOISE, number, accelerator.process_index))
        self.bare.zero_grad()  # what a try without enough memory has left
        accelerator.step = 0
        sums: dict[str, Tensor] = {}
        for batch in batches:
            parts = self.room.parts(batch.lengths)
            with accelerator.accumulate(self.model):
                for part in parts:
                    given = batch.part(part) if len(parts) > 1 else batch.inputs
                    inputs = {name: value.to(accelerator.device) for name, value in given.items()}
                    masked = int(given["mask"].sum())
                    weight = masked / batch.masked if batch.masked else 1 / len(parts)
                    losses = self.model(**inputs, temperature=temperature)
                    accelerator.backward(losses["loss"] * weight)
                    for name, value in losses.items():
                        found = value.detach().float() * (weight / len(batches))
                        sums[name] = sums.get(name, 0.0) + found
        return sums

    def _check(self, values: dict[str, float], low: int) -> int:
        """Raise TaptCollapse if training degenerated; the number of low perplexities in a row."""
        config = self.config
        finite = math.isfinite(values["loss"]) and (
            math.isfinite(values["grad_norm"]) or self.accelerator.mixed_precision == "fp16"
        )
        warm = self.step > config.warmup_share * self.steps
        low = low + 1 if warm and values["perplexity"] < config.collapse_perplexity else 0
        if finite and low < config.collapse_steps:
            return low
        if self.accelerator.is_main_process:
            self.files.abandon()
        if not finite:
            raise TaptCollapse(
                f"loss {values['loss']} and gradient norm {values['grad_norm']} at step "
                f"{self.step}: lower learning_rate ({config.learning_rate}) and "
                f"head_learning_rate ({config.head_learning_rate}), or use precision fp32"
            )
        raise TaptCollapse(
            f"perplexity {values['perplexity']:.2f} at step {self.step}, below "
            f"{config.collapse_perplexity} for {low} steps: everything has become one codeword. "
            f"Raise diversity_weight ({config.diversity_weight}; wav2vec 2.0 has 0.1), lower "
            "head_learning_rate, or check that the recordings are not silence"
        )

    def _measure(self) -> HeldOut | None:
        """Accuracy on the held-out utterances; the first process measures, the others wait."""
        found = None
        if self.held_out and self.accelerator.is_main_process:
            store = self.store
            if self.config.train_cnn:  # the features of the CNN as it is now
                store = FeatureStore(store.root, self.bare.backbone, limits=store.limits)
            found = self._from_readable(
                lambda: (
                    held_out_accuracy(self.bare, store, self.held_out, units=self.units)
                    if self.held_out
                    else None
                )
            )
        self.accelerator.wait_for_everyone()
        return found

    # --- files ---------------------------------------------------------------------------------

    def _due(self) -> bool:
        """Whether to write a checkpoint after this step."""
        every = self.config.save_every
        return (
            self.step == self.steps
            or (every is not None and self.step % every == 0)
            or time.monotonic() - self.saved >= self.config.save_every_s
        )

    def _save(self) -> None:
        """Write what training has changed; the rest is the backbone's."""
        scaler = self.accelerator.scaler
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "seconds": self.seconds,
            "heard": self.heard,
            "before": asdict(self.before) if self.before else None,
        }
        frozen = {name for name, p in self.bare.named_parameters() if not p.requires_grad}
        weights = {k: v for k, v in self.bare.state_dict().items() if k not in frozen}
        self.files.save_checkpoint(self.step, weights, state)
        self.saved = time.monotonic()

    def _resume(self, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.step = step
        self.bare.load_state_dict(weights, strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.seconds, self.heard = state["seconds"], state["heard"]
        self.before = HeldOut(**state["before"]) if state["before"] else None

    def _rng(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, stream])

    def _finish(self) -> None:
        after = self._measure()
        lost = dict(gather_object(list(self.feed.lost.items())))
        if self.accelerator.is_main_process:
            last = self.files.last_record()
            report = TaptReport(
                folder=self.files.root,
                objective=self.config.objective,
                steps=self.steps,
                utterances=len(self.utterances) - len(lost),
                audio_seconds=self.heard,
                seconds=self.seconds,
                loss=last["loss"],
                perplexity=last["perplexity"],
                masked_share=last["masked_share"],
                precision=self.accelerator.mixed_precision.replace("no", "fp32"),
                fresh_heads=self.fresh_heads,
                skipped=(*self.skipped, *lost.values()),
                before=self.before,
                after=after,
            )
            self.files.finish(self.bare, report)
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()


def make_accelerator(device: torch.device, precision: str, accumulation: int) -> Accelerator:
    """An Accelerator for a resolved device and precision, under torchrun or alone.

    Alone it computes on the card given; torchrun gives each process the card of its LOCAL_RANK, and
    TaptError is raised if another is asked for.
    """
    # Accelerate keeps the precision of a process's first Accelerator; adaptations may differ in it.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[
            # Frozen parts, layer drop and steps without a masked frame leave parameters unused.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The first process makes units while the others wait, and shares of a pool differ.
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )
    if device.index is not None:
        if accelerator.num_processes > 1:
            raise TaptError(
                f"device {device}: under torchrun each process has the card of its rank; say "
                '"cuda", and choose cards with CUDA_VISIBLE_DEVICES'
            )
        accelerator.state.device = device  # it would take the first
    return accelerator
