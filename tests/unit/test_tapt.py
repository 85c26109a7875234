"""Task-adaptive pre-training: the objectives against transformers, the trainer from end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from safetensors.torch import load_file

from after_model import backbone as backbones
from after_model import tapt
from after_model.audio import Utterance
from after_model.backbone import Backbone
from after_model.features import FeatureStore
from after_model.masking import span_mask
from after_model.memory import Room
from after_model.tapt.__main__ import main
from after_model.tapt.batches import Feed
from after_model.tapt.config import TaptConfig
from after_model.tapt.files import Folder
from after_model.tapt.losses import sample_distractors
from after_model.tapt.objectives import CodebookHeads, Quantizer, TaptModel
from after_model.tapt.training import make_accelerator

ROOT = Path(__file__).resolve().parents[2]

TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": False, "layerdrop": 0.0,
}  # fmt: skip
CODEBOOK = {
    "num_codevectors_per_group": 16, "num_codevector_groups": 2, "codevector_dim": 8,
    "proj_codevector_dim": 8,
}  # fmt: skip
SHORT = TaptConfig(
    max_steps=4, batch_seconds=4.0, units=5, save_every=2, precision="fp32", collapse_steps=100
)


def save(model: transformers.PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 of a few thousand random weights, without a quantizer."""
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(**TINY, **CODEBOOK)
    return save(transformers.Wav2Vec2Model(config), tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def hubert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = transformers.HubertConfig(**TINY)
    return save(transformers.HubertModel(config), tmp_path_factory.mktemp("hubert"))


@pytest.fixture(scope="module")
def pretraining_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Wav2Vec2ForPreTraining: its checkpoint has a quantizer and projections."""
    torch.manual_seed(1)
    no_dropout = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0
    )
    config = transformers.Wav2Vec2Config(**TINY, **CODEBOOK, **no_dropout)
    model = transformers.Wav2Vec2ForPreTraining(config)
    torch.nn.init.normal_(model.quantizer.weight_proj.weight)
    return save(model, tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Twelve recordings of coloured noise, 0.3 to 1.4 s."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(12):
        noise = rng.normal(size=4_800 + 1_600 * i)
        tone = np.sin(np.arange(len(noise)) * rng.uniform(0.01, 0.5))
        path = folder / f"{i:02d}.wav"
        soundfile.write(path, 0.05 * noise + 0.3 * tone, 16_000)
        utterances.append(Utterance(path.stem, path))
    return utterances


@pytest.fixture
def tiny(tiny_folder: Path) -> Backbone:
    return backbones.load(tiny_folder)


@pytest.fixture
def store(tiny: Backbone, tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store", tiny)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        **load_file(folder / "model.safetensors"),
        **load_file(folder / "tapt_heads.safetensors"),
    }


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "tapt_log.jsonl").read_text().splitlines()]


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Killed(BaseException):
    """Stands for the end of the process."""


def kill_after(step: int) -> Callable[[str, float, float], None]:
    def progress(stage: str, done: float, _total: float) -> None:
        if stage == "tapt" and done == step:
            raise Killed

    return progress


# --- objectives --------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_wav2vec2_objective_is_that_of_transformers(
    pretraining_folder: Path, training: bool
) -> None:
    """Same weights, masks, negatives and noise as Wav2Vec2ForPreTraining give the same loss."""
    theirs = transformers.Wav2Vec2ForPreTraining.from_pretrained(pretraining_folder)
    ours = TaptModel(backbones.load(pretraining_folder), "wav2vec2", diversity_weight=0.1)
    theirs.train(training)
    ours.train(training)
    rng = np.random.default_rng(0)
    waves = torch.from_numpy(rng.normal(size=(3, 16_000)).astype(np.float32))
    frames = np.full(3, ours.backbone.num_frames(16_000))
    mask = span_mask(frames, int(frames[0]), 0.4, 5, rng)
    ranks = sample_distractors(mask, 100, rng)  # [B, M, K]
    negatives = np.zeros((*mask.shape, 100), dtype=np.int64)
    for b, marked in enumerate(mask):
        positions = np.flatnonzero(marked)
        negatives[b, positions] = positions[ranks[b, : len(positions)]] + b * mask.shape[1]
    torch.manual_seed(5)
    wanted = theirs(
        waves,
        mask_time_indices=torch.from_numpy(mask),
        sampled_negative_indices=torch.from_numpy(negatives),
    )
    torch.manual_seed(5)
    losses = ours(
        waves,
        torch.full((3,), 16_000),
        torch.from_numpy(mask),
        temperature=2.0 if training else None,
        distractors=torch.from_numpy(ranks),
    )
    assert not ours.fresh
    assert losses["contrastive"].item() == pytest.approx(
        wanted.contrastive_loss.item() / mask.sum(), abs=1e-4
    )
    if training:  # in evaluation transformers takes the diversity of hard codes
        assert losses["loss"].item() == pytest.approx(wanted.loss.item() / mask.sum(), abs=1e-4)


def test_quantizer_is_that_of_transformers(pretraining_folder: Path) -> None:
    theirs = transformers.Wav2Vec2ForPreTraining.from_pretrained(pretraining_folder).quantizer
    ours = Quantizer(8, groups=2, codes=16, codevector_dim=8)
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(2, 9, 8)
    torch.testing.assert_close(ours(features)[0], theirs.eval()(features)[0])


def test_paper_objective_sums_eq_1_and_eq_2(tiny: Backbone) -> None:
    model = TaptModel(tiny, "paper").eval()
    heads = model.heads
    assert isinstance(heads, CodebookHeads)
    features, frames = torch.randn(2, 20, 8), torch.tensor([20, 13])
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[:, 4:9] = True
    losses = model(features, frames, mask)
    valid = backbones.frame_mask(frames, 20)
    context = tiny(features, frames, time_mask=mask)
    quantized, codes = model.targets(features)
    eq_1 = tapt.contrastive_loss(heads.project_hid(context), quantized, valid)
    logits = heads.token_head(context).unflatten(-1, (2, 16))
    eq_2 = sum(tapt.reconstruction_loss(logits[:, :, g], codes[..., g], mask) for g in (0, 1)) / 2
    torch.testing.assert_close(losses["contrastive"], eq_1)
    torch.testing.assert_close(losses["reconstruction"], eq_2)
    torch.testing.assert_close(losses["loss"], eq_1 + eq_2)


def test_padding_does_not_change_the_loss(tiny: Backbone) -> None:
    model = TaptModel(tiny, "paper", diversity_weight=0.1).eval()
    features, frames = torch.randn(2, 20, 8), torch.tensor([20, 13])
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[:, 4:9] = True
    longer = torch.full((2, 31, 8), 3.0)
    longer[:, :20] = features
    wider = torch.zeros(2, 31, dtype=torch.bool)
    wider[:, :20] = mask
    loss, padded = model(features, frames, mask)["loss"], model(longer, frames, wider)["loss"]
    assert padded.item() == pytest.approx(loss.item(), abs=1e-4)


def test_the_objective_follows_the_family() -> None:
    assert TaptConfig().resolved("wav2vec2", 12, 1).objective == "paper"
    for family in ("hubert", "wavlm", "data2vec-audio"):
        assert TaptConfig().resolved(family, 12, 1).objective == "hubert"
    assert TaptConfig(objective="wav2vec2").resolved("hubert", 12, 1).mask_share == 0.49


def test_gumbel_temperature_decays_to_its_end() -> None:
    assert TaptConfig().gumbel_temperature(50, 50) == pytest.approx(0.5)
    assert TaptConfig(gumbel_decay=0.9).gumbel_temperature(2, 50) == pytest.approx(1.62)


@pytest.mark.parametrize("field", ["objective", "mask_share", "epochs", "contrast"])
def test_a_wrong_setting_is_named(field: str) -> None:
    with pytest.raises(tapt.TaptError, match=field):
        TaptConfig(**{field: "none" if field in ("objective", "contrast") else 0})


# --- adapt -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["paper", "wav2vec2", "hubert"])
def test_adapt_leaves_an_adapted_backbone(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path, objective: str
) -> None:
    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    config = tapt.TaptConfig(**{**vars(SHORT), "objective": objective})
    state = torch.get_rng_state()
    report = tapt.adapt(
        tiny, pool[:9], store, tmp_path / "out", config, held_out=pool[9:], device="cpu"
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], weight) for name, weight in tiny.state_dict().items())
    adapted = backbones.load(tmp_path / "out")
    assert adapted.cnn_hash == tiny.cnn_hash  # the cached features stay valid
    features, frames = torch.randn(1, 20, 8), torch.tensor([20])
    assert not torch.equal(adapted(features, frames), tiny(features, frames))
    records = log(tmp_path / "out")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert {"loss", "perplexity", "grad_norm", "masked_share", "learning_rate",
            "audio_s_per_s"} <= records[0].keys()  # fmt: skip
    assert report.steps == 4
    assert report.before is not None
    assert report.after is not None
    assert not list((tmp_path / "out").glob("*checkpoint*"))
    embeddings = tapt.surprisal(tmp_path / "out", store, pool, size=7, device="cpu")
    assert embeddings.shape == (12, 7)
    assert np.isfinite(embeddings).all()


def test_hubert_backbones_are_adapted_by_masked_prediction(
    hubert_folder: Path, pool: list[Utterance], tmp_path: Path
) -> None:
    hubert = backbones.load(hubert_folder)
    store = FeatureStore(tmp_path / "store", hubert)
    report = tapt.adapt(hubert, pool, store, tmp_path / "out", SHORT, device="cpu")
    assert report.objective == "hubert"
    assert report.masked_share == pytest.approx(0.2, abs=0.05)


def test_losses_fall(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(
        max_steps=60, batch_seconds=10.0, precision="fp32", save_every=1000, learning_rate=5e-4
    )
    tapt.adapt(tiny, pool, store, tmp_path / "out", config, device="cpu")
    losses = [record["loss"] for record in log(tmp_path / "out")]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_a_finished_folder_returns_at_once(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    report = tapt.adapt(tiny, pool, store, tmp_path / "out", SHORT, device="cpu")
    again = tapt.adapt(
        tiny, pool, store, tmp_path / "out", SHORT, device="cpu", progress=kill_after(1)
    )
    assert again == report


@pytest.mark.parametrize(
    ("objective", "step"), [("paper", 1), ("paper", 3), ("paper", 6), ("hubert", 4)]
)
def test_a_killed_run_ends_where_it_would_have(
    tiny: Backbone,
    store: FeatureStore,
    pool: list[Utterance],
    tmp_path: Path,
    objective: str,
    step: int,
) -> None:
    changes = {"objective": objective, "max_steps": 6, "accumulation": 2}
    config = TaptConfig(**{**vars(SHORT), **changes})
    arguments = {"held_out": pool[9:], "device": "cpu"}
    tapt.adapt(tiny, pool[:9], store, tmp_path / "whole", config, **arguments)
    with pytest.raises(Killed):
        tapt.adapt(
            tiny, pool[:9], store, tmp_path / "cut", config, progress=kill_after(step), **arguments
        )
    report = tapt.adapt(tiny, pool[:9], store, tmp_path / "cut", config, **arguments)
    assert same_weights(tmp_path / "whole", tmp_path / "cut")
    assert [(r["step"], r["loss"]) for r in log(tmp_path / "whole")] == [
        (r["step"], r["loss"]) for r in log(tmp_path / "cut")
    ]
    assert report.before is not None


def test_a_kill_while_a_checkpoint_is_written_loses_nothing_older(
    tiny: Backbone,
    store: FeatureStore,
    pool: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved: list[str] = []

    def torch_save(*_: object) -> None:
        saved.append("")
        if len(saved) == 2:
            raise Killed
        original(*_)

    original = torch.save
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", torch_save)
        with pytest.raises(Killed):
            tapt.adapt(tiny, pool, store, tmp_path / "cut", SHORT, device="cpu")
    tapt.adapt(tiny, pool, store, tmp_path / "cut", SHORT, device="cpu")
    tapt.adapt(tiny, pool, store, tmp_path / "whole", SHORT, device="cpu")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


def interrupted(
    backbone: Backbone,
    pool: list[Utterance],
    store: FeatureStore,
    folder: Path,
    config: TaptConfig = SHORT,
    held_out: list[Utterance] | None = None,
) -> None:
    """An adaptation in the folder that ended after its third step, its checkpoint of the second."""
    with pytest.raises(Killed):
        tapt.adapt(
            backbone, pool, store, folder, config, held_out=held_out or [], device="cpu",
            progress=kill_after(3),
        )  # fmt: skip


def steps_made(folder: Path, adapt: Callable[..., tapt.TaptReport]) -> list[float]:
    """The steps that a run made itself: two are left after a run that was interrupted."""
    made: list[float] = []
    adapt(progress=lambda stage, done, _: made.append(done) if stage == "tapt" else None)
    return made


@pytest.fixture
def copies(pool: list[Utterance], tmp_path: Path) -> list[Utterance]:
    """The pool in files that a test may delete."""
    folder = tmp_path / "copies"
    folder.mkdir()
    return [Utterance(u.id, Path(shutil.copy(u.path, folder))) for u in pool]


OTHER = TaptConfig(**{**vars(SHORT), "learning_rate": 0.5})


def test_a_finished_folder_refuses_another_adaptation(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    tapt.adapt(tiny, pool, store, tmp_path, SHORT, device="cpu")
    with pytest.raises(tapt.TaptError, match=r"learning_rate was 5e-05 and is now 0.5.*restart"):
        tapt.adapt(tiny, pool, store, tmp_path, OTHER, device="cpu")
    others = [Utterance(f"other {u.id}", u.path) for u in pool]
    with pytest.raises(tapt.TaptError, match="2 of the 14 utterances"):
        tapt.adapt(tiny, [*pool[:2], *others], store, tmp_path, SHORT, device="cpu")
    with pytest.raises(tapt.TaptError, match="00, now held out, was trained on"):
        tapt.adapt(tiny, pool[1:], store, tmp_path, SHORT, held_out=pool[:1], device="cpu")


def test_a_finished_folder_serves_a_pool_that_lost_and_gained_recordings(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    report = tapt.adapt(tiny, pool[:9], store, tmp_path, SHORT, device="cpu")
    assert tapt.adapt(tiny, pool[3:], store, tmp_path, SHORT, device="cpu") == report


def test_a_finished_folder_begins_anew_when_asked(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    tapt.adapt(tiny, pool, store, tmp_path, SHORT, device="cpu")
    tapt.adapt(tiny, pool, store, tmp_path, OTHER, device="cpu", restart=True)
    assert log(tmp_path)[-1]["step"] == 4
    with pytest.raises(tapt.TaptError, match=r"learning_rate was 0\.5"):
        tapt.adapt(tiny, pool, store, tmp_path, SHORT, device="cpu")


def test_what_a_kill_left_of_a_finished_run_is_removed(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    tapt.adapt(tiny, pool, store, tmp_path, SHORT, device="cpu")
    (tmp_path / "checkpoint-00000004").mkdir()
    tapt.adapt(tiny, pool, store, tmp_path, SHORT, device="cpu")
    assert not list(tmp_path.glob("checkpoint*"))


def test_an_unfinished_folder_of_another_adaptation_begins_anew(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    interrupted(tiny, pool, store, tmp_path)
    made = steps_made(
        tmp_path, partial(tapt.adapt, tiny, pool, store, tmp_path, OTHER, device="cpu")
    )
    assert made == [1, 2, 3, 4]


def forget(store: FeatureStore) -> None:
    """Features are evicted, as where the disk is full; else they would outlive their recordings."""
    for entry in store.folder.glob("??/*"):
        entry.unlink()


@pytest.mark.parametrize("objective", ["paper", "hubert"])
@pytest.mark.parametrize("fate", ["not given", "deleted", "unreadable"])
def test_an_interrupted_run_goes_on_without_a_recording_that_is_gone(
    tiny: Backbone,
    store: FeatureStore,
    copies: list[Utterance],
    tmp_path: Path,
    objective: str,
    fate: str,
) -> None:
    config = TaptConfig(**{**vars(SHORT), "objective": objective})
    interrupted(tiny, copies, store, tmp_path / "out", config)
    if fate == "unreadable":
        copies[5].path.write_bytes(b"no audio")
    else:
        copies[5].path.unlink()
        store = FeatureStore(tmp_path / "others", store.backbone)  # without its features
    given = [u for u in copies if fate != "not given" or u is not copies[5]]
    made = steps_made(
        tmp_path, partial(tapt.adapt, tiny, given, store, tmp_path / "out", config, device="cpu")
    )
    assert made == [3, 4]
    report = tapt.adapt(tiny, given, store, tmp_path / "out", config, device="cpu")
    assert report.utterances == 11
    assert "05" in report.skipped[0]


def test_an_interrupted_run_goes_on_when_recordings_have_come(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    interrupted(tiny, pool[:9], store, tmp_path / "cut")
    tapt.adapt(tiny, pool, store, tmp_path / "cut", SHORT, device="cpu")
    tapt.adapt(tiny, pool[:9], store, tmp_path / "whole", SHORT, device="cpu")
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("case", ["most are gone", "one is held out now"])
def test_an_interrupted_run_begins_anew_on_another_pool(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path, case: str
) -> None:
    interrupted(tiny, pool, store, tmp_path)
    given, held_out = (pool[:5], []) if case == "most are gone" else (pool[1:], pool[:1])
    made = steps_made(
        tmp_path,
        partial(tapt.adapt, tiny, given, store, tmp_path, SHORT, held_out=held_out, device="cpu"),
    )
    assert made == [1, 2, 3, 4]


@pytest.mark.parametrize("train_cnn", [False, True])
def test_a_recording_that_goes_while_training_is_left_out_and_reported(
    tiny: Backbone,
    store: FeatureStore,
    copies: list[Utterance],
    tmp_path: Path,
    train_cnn: bool,
) -> None:
    def progress(stage: str, done: float, _total: float) -> None:
        if stage == "tapt" and done == 1:
            for utterance in (copies[2], copies[11]):  # one to train on, one held out
                utterance.path.unlink(missing_ok=True)
            forget(store)

    changes = {"train_cnn": train_cnn, "max_steps": 8}
    config = TaptConfig(**{**vars(SHORT), **changes})
    report = tapt.adapt(
        tiny, copies[:9], store, tmp_path / "out", config, held_out=copies[9:], device="cpu",
        progress=progress,
    )  # fmt: skip
    assert report.steps == 8
    assert report.utterances == 8
    assert any("02.wav" in reason for reason in report.skipped)
    assert any("11.wav" in reason for reason in report.skipped)


def test_when_every_recording_has_gone_the_error_says_so(
    tiny: Backbone, store: FeatureStore, copies: list[Utterance], tmp_path: Path
) -> None:
    def progress(stage: str, done: float, _total: float) -> None:
        if stage == "tapt" and done == 1:
            for utterance in copies:
                utterance.path.unlink()
            forget(store)

    config = TaptConfig(**{**vars(SHORT), "max_steps": 40})
    with pytest.raises(tapt.TaptError, match=r"none of the 12 recordings.*0\d.wav"):
        tapt.adapt(tiny, copies, store, tmp_path / "out", config, device="cpu", progress=progress)


def test_an_identity_follows_backbone_and_settings(tiny: Backbone, hubert_folder: Path) -> None:
    name = tapt.identity(tiny, SHORT)
    assert name == tapt.identity(tiny, TaptConfig(**{**vars(SHORT), "save_every": 9}))
    assert len({name, tapt.identity(tiny, OTHER), tapt.identity(tiny)}) == 3
    assert name != tapt.identity(backbones.load(hubert_folder), SHORT)
    assert name.isalnum()


@pytest.mark.parametrize(("seconds", "expected"), [(1e9, [4]), (1e-9, [1, 2, 3, 4])])
def test_checkpoints_are_written_by_time(
    tiny: Backbone,
    store: FeatureStore,
    pool: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    expected: list[int],
) -> None:
    written: list[int] = []
    monkeypatch.setattr(Folder, "save_checkpoint", lambda _self, step, *_: written.append(step))
    config = TaptConfig(**{**vars(SHORT), "save_every": None, "save_every_s": seconds})
    tapt.adapt(tiny, pool, store, tmp_path, config, device="cpu")
    assert written == expected


def test_a_checkpoint_holds_what_is_trained_and_the_last_alone_is_kept(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(**{**vars(SHORT), "save_every": 1})
    interrupted(tiny, pool, store, tmp_path, config)
    (kept,) = tmp_path.glob("checkpoint*")
    stored = load_file(kept / "model.safetensors")
    assert "backbone.model.encoder.layers.0.attention.k_proj.weight" in stored
    assert not [name for name in stored if "feature_extractor" in name]


def test_a_step_without_memory_is_made_in_parts(
    tiny: Backbone,
    store: FeatureStore,
    pool: list[Utterance],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    forward = TaptModel.forward

    def short(self: TaptModel, features: torch.Tensor, *rest: object, **more: object) -> object:
        sizes.append(len(features))
        if len(features) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, features, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TaptModel, "forward", short)
    config = TaptConfig(**{**vars(SHORT), "accumulation": 2, "max_steps": 3})
    report = tapt.adapt(tiny, pool, store, tmp_path, config, device="cpu")
    assert report.steps == 3
    assert sum(size > 3 for size in sizes) <= 2  # and not tried again


def test_parts_of_a_step_have_the_gradients_of_the_whole(
    pretraining_folder: Path, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    """wav2vec 2.0's loss without diversity is a mean over masked frames, and noise is off."""
    backbone = backbones.load(pretraining_folder)
    model = TaptModel(backbone, "wav2vec2").eval()
    own = FeatureStore(tmp_path / "own", backbone)
    config = TaptConfig(objective="wav2vec2", batch_seconds=20).resolved("wav2vec2", 2, 1)
    feed = Feed(pool, own.frames(pool), own, config, None, frame_seconds=0.02, rank=0, world=1)
    _, (batch,) = next(iter(feed.read(after=0)))
    whole = torch.autograd.grad(model(**batch.inputs)["loss"], model.heads.project_hid.weight)[0]
    total = torch.zeros_like(whole)
    for part in Room(200).parts(batch.lengths):
        given = batch.part(part)
        weight = int(given["mask"].sum()) / batch.masked
        loss = model(**given)["loss"] * weight
        total += torch.autograd.grad(loss, model.heads.project_hid.weight)[0]
    torch.testing.assert_close(total, whole, atol=1e-5, rtol=1e-4)


# --- devices -----------------------------------------------------------------------------------


def test_the_card_given_is_the_one_used() -> None:
    try:
        device = make_accelerator(torch.device("cuda", 1), "fp32", 1).device
        assert device == torch.device("cuda", 1)
    finally:
        make_accelerator(torch.device("cpu"), "fp32", 1)


def test_torchrun_s_processes_share_the_cores_when_they_encode(
    tiny_folder: Path, pool: list[Utterance], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr("after_model.tapt.__main__.cores", lambda: 6)
    found: list[int] = []

    def adapt(_backbone: object, _train: object, store: FeatureStore, *_: object, **__: object):
        found.append(store.workers)
        raise tapt.TaptError("enough")

    monkeypatch.setattr(tapt, "adapt", adapt)
    assert main(["--audio", str(pool[0].path.parent), "--out", str(tmp_path / "out"),
                 "--backbone", str(tiny_folder), "--device", "cpu"]) == 1  # fmt: skip
    assert found == [3]


def test_a_collapsed_codebook_is_an_error_and_frees_the_folder(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    changes = {"collapse_perplexity": 1000.0, "collapse_steps": 2}
    with pytest.raises(tapt.TaptCollapse, match="diversity_weight"):
        tapt.adapt(
            tiny, pool, store, tmp_path, TaptConfig(**{**vars(SHORT), **changes}), device="cpu"
        )
    changed = TaptConfig(**{**vars(SHORT), "diversity_weight": 0.1})
    assert tapt.adapt(tiny, pool, store, tmp_path, changed, device="cpu").steps == 4


def test_a_loss_that_is_not_finite_is_an_error(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(
        **{**vars(SHORT), "learning_rate": 1e38, "head_learning_rate": 1e38, "max_steps": 10}
    )
    with pytest.raises(tapt.TaptCollapse, match="learning_rate"):
        tapt.adapt(tiny, pool, store, tmp_path, config, device="cpu")


def test_unreadable_recordings_are_skipped_and_reported(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    report = tapt.adapt(
        tiny, [*pool, Utterance("bad", bad)], store, tmp_path / "out", SHORT, device="cpu"
    )
    assert report.utterances == 12
    assert "bad.wav" in report.skipped[0]
    with pytest.raises(tapt.TaptError, match=r"none of the 1 recordings.*bad.wav"):
        tapt.adapt(tiny, [Utterance("bad", bad)], store, tmp_path / "none", SHORT, device="cpu")


def test_very_short_recordings_are_no_obstacle(
    tiny: Backbone, store: FeatureStore, write_wav: Callable[..., Path], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(size=2_000) * 0.1
    clips = [Utterance(str(i), write_wav(f"{i}.wav", noise[: 1_700 + i])) for i in range(3)]
    for objective in ("paper", "wav2vec2", "hubert"):
        config = TaptConfig(**{**vars(SHORT), "objective": objective})
        tapt.adapt(tiny, clips, store, tmp_path / objective, config, device="cpu")


def test_training_the_cnn_changes_it(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(**{**vars(SHORT), "train_cnn": True, "max_steps": 2})
    tapt.adapt(tiny, pool, store, tmp_path / "out", config, held_out=pool[:2], device="cpu")
    assert backbones.load(tmp_path / "out").cnn_hash != tiny.cnn_hash


def test_heads_alone_can_be_trained_as_a_control(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(**{**vars(SHORT), "train_backbone": False, "max_steps": 2})
    tapt.adapt(tiny, pool, store, tmp_path / "out", config, device="cpu")
    features, frames = torch.randn(1, 20, 8), torch.tensor([20])
    assert torch.equal(backbones.load(tmp_path / "out")(features, frames), tiny(features, frames))


def test_a_backbone_that_is_not_trained_has_no_cnn_to_train() -> None:
    with pytest.raises(tapt.TaptError, match="train_cnn"):
        TaptConfig(train_cnn=True, train_backbone=False)


def test_precision_may_differ_between_runs_of_a_process(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    for precision in ("bf16", "fp32"):
        config = TaptConfig(**{**vars(SHORT), "precision": precision, "max_steps": 1})
        report = tapt.adapt(tiny, pool, store, tmp_path / precision, config, device="cpu")
        assert report.precision == precision


def test_an_adaptation_goes_on_from_the_heads_of_an_earlier_one(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    first = tapt.adapt(tiny, pool, store, tmp_path / "1", SHORT, device="cpu")
    adapted = backbones.load(tmp_path / "1")
    second = tapt.adapt(adapted, pool, store, tmp_path / "2", SHORT, device="cpu")
    assert first.fresh_heads
    assert not second.fresh_heads


# --- evaluation --------------------------------------------------------------------------------


def test_surprisal_does_not_depend_on_batch_mates(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance]
) -> None:
    model = TaptModel(tiny, "paper")
    together = tapt.surprisal(model, store, pool, size=16)
    alone = np.concatenate([tapt.surprisal(model, store, [u], size=16) for u in pool])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_held_out_accuracy_of_new_heads_is_near_chance(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance]
) -> None:
    found = tapt.held_out_accuracy(TaptModel(tiny, "paper"), store, pool)
    assert found.accuracy == pytest.approx(found.chance, abs=0.15)
    assert found.accuracy <= found.ceiling


def test_units_of_unknown_audio_are_an_error(
    tiny: Backbone, store: FeatureStore, pool: list[Utterance], tmp_path: Path
) -> None:
    config = TaptConfig(**{**vars(SHORT), "objective": "hubert", "max_steps": 1})
    tapt.adapt(tiny, pool[:9], store, tmp_path / "out", config, device="cpu")
    with pytest.raises(tapt.TaptError, match="no units; pass it to adapt"):
        tapt.surprisal(tmp_path / "out", store, pool[9:], device="cpu")


# --- command line and several processes --------------------------------------------------------


def test_command_line_adapts_a_folder(
    tiny_folder: Path, pool: list[Utterance], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--audio", str(pool[0].path.parent), "--out", str(tmp_path / "out"), "--device",
                 "cpu", "--backbone", str(tiny_folder), "--hold-out", "0[0-3].wav",
                 "--max-steps", "2", "--no-train-cnn"]  # fmt: skip
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "8 recordings" in shown
    assert "held out, after: accuracy" in shown
    assert main([*arguments[:-1], "--seed", "9"]) == 1
    assert "seed was 0 and is now 9" in capsys.readouterr().err


RANKS = """
import hashlib, sys
from pathlib import Path
import torch
from after_model.tapt import training
from after_model.tapt.__main__ import main

finish = training.Run._finish
def record(self):
    state = hashlib.sha256()
    for name, weight in sorted(self.bare.state_dict().items()):
        state.update(weight.numpy().tobytes())
    path = self.files.root / f"rank-{self.accelerator.process_index}"
    path.write_text(f"{self.accelerator.num_processes} {self.step} {state.hexdigest()}")
    finish(self)
training.Run._finish = record
raise SystemExit(main())
"""


@pytest.mark.slow
def test_two_processes_train_one_model(
    tiny_folder: Path, pool: list[Utterance], tmp_path: Path
) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2",
               "--master_port=0", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0",
               str(script), "--audio", str(pool[0].path.parent), "--out", str(tmp_path / "out"),
               "--backbone", str(tiny_folder), "--device", "cpu", "--max-steps", "2",
               "--batch-seconds", "3", "--precision", "fp32"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ranks = [(tmp_path / "out" / f"rank-{i}").read_text() for i in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0].startswith("2 2 ")
    assert [record["step"] for record in log(tmp_path / "out")] == [1, 2]
