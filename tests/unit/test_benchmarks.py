"""The benchmarks run, and what they compare computes the same. Nothing here depends on time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import finetuning, flops, report, scoring, tapt, weights
from benchmarks.__main__ import main
from benchmarks.apart import Apart, Here
from benchmarks.machine import Machine
from benchmarks.settings import OutputsDiffer, Settings, TooLittleAudio, check_equal

TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "num_codevectors_per_group": 16, "codevector_dim": 8, "proj_codevector_dim": 8,
    "layerdrop": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Eight recordings of 0.5 to 1.2 s and a backbone of a few thousand random weights."""
    folder = tmp_path_factory.mktemp("benchmarks")
    rng = np.random.default_rng(0)
    for i in range(8):
        noise = rng.normal(size=8_000 + 1_600 * i)
        tone = np.sin(np.arange(len(noise)) * rng.uniform(0.01, 0.5))
        soundfile.write(folder / f"{i}.wav", 0.05 * noise + 0.3 * tone, 16_000)
    transformers.Wav2Vec2Config(**TINY).save_pretrained(folder)
    settings = Settings(
        weights=folder / "weights",
        recordings=tuple(sorted(folder.glob("*.wav"))),
        threads=torch.get_num_threads(),
        repeats=1,
        batch_size=4,
        batch_seconds=3.0,
    )
    weights.Preparation(settings, str(folder / "config.json")).write()
    return settings


@pytest.mark.parametrize("task", [scoring, finetuning, tapt])
def test_contestants_compute_the_same(settings, task, tmp_path):
    rows = task.compare(settings, Here)  # raises where outputs differ by more than 1e-4
    assert all(row.difference <= 1e-4 for row in rows)
    assert all(row.ratio > 0 for row in rows)
    assert all(one.padding >= 1 for row in rows for one in row.ours.passes + row.theirs.passes)
    report.show(rows, {"fp32": 100.0, "bf16": 100.0}, {"device": "a test"})
    report.write(tmp_path / "speed.json", rows, {"fp32": 100.0, "bf16": 100.0}, {})
    written = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["task"] for row in written] == [row.task for row in rows]


def test_outputs_that_differ_are_an_error():
    with pytest.raises(OutputsDiffer, match=r"scoring: outputs differ by 2.00e-04"):
        check_equal("scoring", 2e-4)
    with pytest.raises(OutputsDiffer):
        check_equal("scoring", float("nan"))


def test_counted_operations_are_those_of_torch(settings):
    backbone = weights.load_backbone(str(settings.recordings[0].parent / "config.json"))
    backbone.model.set_attn_implementation("eager")  # torch doesn't count the CPU's fused attention
    samples = 16_000
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        backbone.model(torch.randn(1, samples))
    frames = backbone.num_frames(samples)
    counted = flops.cnn(backbone.config, samples) + flops.transformer(backbone.config, frames)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_contestant_has_a_process_of_its_own(settings):
    with Apart(Machine, settings) as machine:
        assert machine("peak_gflops", "fp32", 0.01) > 0
        assert machine.memory().peak_mb > 0


def test_a_single_batch_is_too_little_for_tapt(settings):
    with pytest.raises(TooLittleAudio, match="--batch-seconds"):
        tapt.compare(replace(settings, batch_seconds=600.0), Here)


def test_a_folder_without_recordings_is_an_error(tmp_path, capsys):
    assert main(["--audio", str(tmp_path)]) == 1
    assert "no recordings" in capsys.readouterr().err
