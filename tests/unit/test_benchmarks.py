"""The benchmarks run, and what they compare computes the same. Nothing here depends on time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from after_model import backbone as backbones
from after_model.classifier import EmotionClassifier, new_classifier
from after_model.labels import LabelSpace
from benchmarks import (
    encoders,
    finetuning,
    flops,
    layers,
    report,
    scoring,
    steps,
    tapt,
    weights,
)  # fmt: skip
from benchmarks.__main__ import main
from benchmarks.apart import Apart, Here
from benchmarks.machine import Machine
from benchmarks.plain import load_plain
from benchmarks.settings import (
    CLASSES,
    LeftOut,
    OutputsDiffer,
    Settings,
    TooLittleAudio,
    check_equal,
)

NAMES = tuple(f"class {i}" for i in range(CLASSES))
PLAIN = scoring.Peer("transformers, a recording at a time", encoders.PlainScoring)

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
def test_contestants_compute_the_same(settings, task, tmp_path, monkeypatch):
    pipeline = scoring.Peer(scoring.PIPELINE, encoders.PipelineScoring, exact=False)
    monkeypatch.setattr(scoring, "candidates", lambda _: [PLAIN, pipeline])  # the others: minutes
    rows = task.compare(settings, Here)  # raises where outputs differ by more than 1e-4
    assert any(row.exact for row in rows)
    assert all(row.difference <= 1e-4 for row in rows if row.exact)
    assert all(row.ratio > 0 for row in rows)
    assert all(one.padding >= 1 for row in rows for one in row.ours.passes + row.theirs.passes)
    report.show(rows, {"fp32": 100.0, "bf16": 100.0}, {"device": "a test"})
    report.write(tmp_path / "speed.json", rows, {"fp32": 100.0, "bf16": 100.0}, {})
    written = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["task"] for row in written] == [row.task for row in rows]


def _missing(_: Settings) -> None:
    raise LeftOut("nowhere to be found")


class _Off(encoders.PlainScoring):
    def _probs(self, paths):
        return super()._probs(paths)[:, ::-1]


def test_a_peer_that_cannot_be_had_is_named(settings, monkeypatch):
    monkeypatch.setattr(
        scoring, "candidates", lambda _: [PLAIN, scoring.Peer("the other", _missing)]
    )
    rows = scoring.compare(settings, Here)
    assert "left out: the other: nowhere to be found" in rows[0].remarks


def test_a_peer_that_is_called_exact_and_is_not_stops_the_comparison(settings, monkeypatch):
    monkeypatch.setattr(scoring, "candidates", lambda _: [PLAIN, scoring.Peer("off", _Off)])
    with pytest.raises(OutputsDiffer, match="scoring: off"):
        scoring.compare(settings, Here)
    inexact = scoring.Peer("off", _Off, exact=False)
    monkeypatch.setattr(scoring, "candidates", lambda _: [PLAIN, inexact])
    row = scoring.compare(settings, Here)[1]
    assert (row.theirs.name, row.exact) == ("off", False)
    assert row.difference > 1e-3


@pytest.mark.parametrize("states", [(3,), (1, 3), "last"])
def test_the_plain_forward_of_whisper_is_ours(states, tmp_path):
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=4, encoder_attention_heads=2, encoder_ffn_dim=32,
        num_mel_bins=8, max_source_positions=100, decoder_layers=1, decoder_attention_heads=2,
    )  # fmt: skip
    transformers.WhisperModel(config).encoder.save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(tmp_path)
    backbone = backbones.load(tmp_path)
    new_classifier(backbone, CLASSES, states=states).save(tmp_path / "c", LabelSpace(NAMES))
    plain = load_plain(tmp_path / "c")
    classifier, _ = EmotionClassifier.load(tmp_path / "c")
    wave = np.random.default_rng(0).normal(size=16_123).astype(np.float32)
    with torch.inference_mode():
        prepared = torch.from_numpy(backbone.prepare(wave))
        lengths = torch.tensor([len(prepared)])
        ours = classifier(*classifier.backbone.encode_cnn(prepared[None], lengths))[0]
        inputs = plain.inputs(wave)
        alone = plain(torch.from_numpy(inputs)[None])
        padded = plain.padded(*plain.batch([inputs]))
    torch.testing.assert_close(alone, ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(padded, ours, atol=1e-5, rtol=0)


def test_a_probe_says_what_the_head_says():
    classifier = new_classifier(backbones.load("after-tiny"), CLASSES, states=(1, 2))
    pooled = torch.randn(5, 2, classifier.representation_size, generator=torch.manual_seed(0))
    wanted = classifier.head(pooled.mean(dim=1)).softmax(-1).detach().numpy()
    said = scoring.as_probe(classifier).probs(pooled.flatten(1).numpy())
    np.testing.assert_allclose(said, wanted, atol=1e-6)


def test_steps_are_of_the_learner_itself():
    size = steps.Size(300, 40, 1.0)
    found = steps.measure(size, Settings(Path(), (), repeats=2), Here)
    assert {name: len(took) for name, took in found.steps.items()} == dict.fromkeys(
        steps.STRATEGIES, 2
    )


def test_layers_are_measured_up_to_the_last(settings):
    config = str(settings.recordings[0].parent / "config.json")
    _, depths = layers.measure(settings, config, Here)
    assert [one.state for one in depths] == [1, 2]
    assert 0 < depths[0].work < depths[1].work == 1


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
