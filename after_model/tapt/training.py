"""The training loop of task-adaptive pre-training: one process's part, resumable at any step.

Accelerate does mixed precision, accumulation, clipping and several GPUs. All processes see the
same logged numbers (they are averaged over processes), so they take every decision alike.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import transformers
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor

from after_model.audio import AudioError, Utterance
from after_model.backbone import Backbone
from after_model.features import FeatureStore
from after_model.progress import Progress
from after_model.tapt.batches import CODEBOOK, NOISE, UNITS, Batch, Feed, Step, torch_seed
from after_model.tapt.config import HeldOut, TaptCollapse, TaptConfig, TaptError, TaptReport
from after_model.tapt.evaluation import held_out_accuracy
from after_model.tapt.files import Folder
from after_model.tapt.objectives import TaptModel
from after_model.tapt.units import Units, compute_units, load_units, start_codebook


class Run:
    """An adaptation under way: model, optimizer, how far it is."""

    def __init__(
        self,
        backbone: Backbone,
        utterances: Sequence[Utterance],
        held_out: Sequence[Utterance],
        failures: Sequence[AudioError],
        store: FeatureStore,
        files: Folder,
        config: TaptConfig,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        self.progress = progress
        self.store, self.files, self.config, self.accelerator = store, files, config, accelerator
        broken = {str(error.path) for error in failures}
        self.skipped = tuple(str(error) for error in failures)
        self.utterances = [u for u in utterances if str(u.path) not in broken]
        self.held_out = [u for u in held_out if str(u.path) not in broken]
        if not self.utterances:
            raise TaptError(
                f"none of the {len(utterances)} recordings can be used to adapt"
                + "".join(f"; {error}" for error in failures[:3])
            )
        self.units = self._units(backbone) if config.objective == "hubert" else None
        self.frame_seconds = backbone.frame_seconds
        self.feed = Feed(
            self.utterances,
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
            start_codebook(model, store, self.utterances, self._rng(CODEBOOK))
        self._prepare(model)
        self.step, self.seconds, self.heard = 0, 0.0, 0.0
        self.before: HeldOut | None = None
        if checkpoint is not None:
            self._resume(*checkpoint)
        if accelerator.is_main_process:
            files.cut_log(self.step)

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
            units = compute_units(
                copy.deepcopy(backbone).to(self.accelerator.device),
                self.store,
                self.utterances,
                count=self.config.units,
                layer=self.config.unit_layer,
                rng=self._rng(UNITS),
                held_out=self.held_out,
                progress=self.progress,
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
            if step.number % self.config.save_every == 0 or step.number == self.steps:
                self._save()
        self._finish()

    def _update(self, step: Step, batches: list[Batch]) -> tuple[dict[str, float], float]:
        """One optimizer step: what to log, averaged over processes, and the seconds of audio."""
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(torch_seed(config.seed, NOISE, step.number, accelerator.process_index))
        temperature = config.gumbel_temperature(step.number, self.steps)
        rate = self.optimizer.param_groups[0]["lr"]
        self.model.train()
        sums: dict[str, Tensor] = {}
        grad_norm = 0.0
        for batch in batches:
            inputs = {name: value.to(accelerator.device) for name, value in batch.inputs.items()}
            with accelerator.accumulate(self.model):
                losses = self.model(**inputs, temperature=temperature)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    parameters = self.model.parameters()
                    grad_norm = float(accelerator.clip_grad_norm_(parameters, config.max_grad_norm))
                self.optimizer.step()
                self.optimizer.zero_grad()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach().float() / len(batches)
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
            found = held_out_accuracy(self.bare, store, self.held_out, units=self.units)
        self.accelerator.wait_for_everyone()
        return found

    # --- files ---------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            state = {
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": scaler.state_dict() if scaler is not None else {},
                "seconds": self.seconds,
                "heard": self.heard,
                "before": asdict(self.before) if self.before else None,
            }
            self.files.save_checkpoint(self.step, self.bare.state_dict(), state)
        self.accelerator.wait_for_everyone()

    def _resume(self, step: int, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.step = step
        self.bare.load_state_dict(weights)
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
        if self.accelerator.is_main_process:
            last = self.files.last_record()
            report = TaptReport(
                folder=self.files.root,
                objective=self.config.objective,
                steps=self.steps,
                utterances=len(self.utterances),
                audio_seconds=self.heard,
                seconds=self.seconds,
                loss=last["loss"],
                perplexity=last["perplexity"],
                masked_share=last["masked_share"],
                precision=self.accelerator.mixed_precision.replace("no", "fp32"),
                fresh_heads=self.fresh_heads,
                skipped=self.skipped,
                before=self.before,
                after=after,
            )
            self.files.finish(self.bare, report)
        self.accelerator.wait_for_everyone()
        self.accelerator.free_memory()


def make_accelerator(device: torch.device, precision: str, accumulation: int) -> Accelerator:
    """An Accelerator for a resolved device and precision, under torchrun or alone."""
    # Accelerate keeps the precision of a process's first Accelerator; adaptations may differ in it.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        gradient_accumulation_steps=accumulation,
        kwargs_handlers=[
            # Frozen parts, layer drop and steps without a masked frame leave parameters unused.
            DistributedDataParallelKwargs(find_unused_parameters=True),
            # The first process encodes the whole pool while the others wait.
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )
