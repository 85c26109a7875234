"""Exported folders: transformers, ONNX Runtime and after_model read the same model; the card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from test_backbone import FAMILIES, hidden_states, make

from after_model import backbone as backbones
from after_model.backbone import Backbone
from after_model.backbone.base import quiet_transformers
from after_model.classifier import HEADS, EmotionClassifier, new_classifier
from after_model.export import Facts, MissingPackage, Quality, card, export, onnx_file, portable
from after_model.labels import LabelSpace

LABELS = LabelSpace(("anger", "joy", "sadness"))
SECONDS = (0.1, 0.37, 1.0, 4.3)


def classifier(
    backbone: Backbone, head: str = "statistics", states: object = (1, 2), weighted: bool = False
) -> EmotionClassifier:
    """A classifier in which nothing is neutral: statistics, head and weights of states."""
    made = new_classifier(backbone, len(LABELS), head, states=states, weighted=weighted).eval()
    generator = torch.Generator().manual_seed(0)
    size = made.state_mean.shape
    made.standardise(
        torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.5
    )
    with torch.no_grad():
        if made.state_weights is not None:
            made.state_weights.copy_(torch.tensor([1.0, -0.5]))
        made.head.linear.weight.mul_(5)
        made.head.linear.bias.sub_(torch.from_numpy(logits(made, 1.0)[0]))  # not one class always
    return made


def wave(seconds: float) -> np.ndarray:
    """float32 [S]: noise and a hum that come and go, off zero."""
    samples = int(seconds * 16_000)
    rng, at = np.random.default_rng(samples), np.arange(samples)
    sound = rng.normal(size=samples) * 0.1 * np.sin(at / 3_000) + 0.3 * np.sin(at / 20)
    return (sound + 0.02).astype(np.float32)


def prepared(backbone: Backbone, seconds: float) -> torch.Tensor:
    return torch.from_numpy(backbone.prepare(wave(seconds)))[None]


@torch.inference_mode()
def logits(model: EmotionClassifier, seconds: float) -> np.ndarray:
    """[1, C] by after_model."""
    given = prepared(model.backbone, seconds)
    features = model.backbone.encode_cnn(given, torch.tensor([given.shape[1]]))
    return model(*features)[0].numpy()


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code that comes with a model is cached for one test alone; nothing is said of loading."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    with quiet_transformers():
        yield


def read(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForAudioClassification.from_pretrained(
        folder, trust_remote_code=True
    ).eval()


def written(model: EmotionClassifier, folder: Path) -> tuple[Path, str]:
    folder.mkdir()
    return folder, portable.write(model, LABELS, folder)


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_gives_the_logits_of_every_family(name: str, tmp_path: Path) -> None:
    model = classifier(make(name))
    folder, reader = written(model, tmp_path / "model")
    theirs = read(folder)
    assert type(theirs).__name__ == reader == "AfterForAudioClassification"
    assert theirs.config.id2label == dict(enumerate(LABELS.names))
    for seconds in SECONDS:
        with torch.inference_mode():
            found = theirs(prepared(model.backbone, seconds)).logits.numpy()
        np.testing.assert_allclose(found, logits(model, seconds), atol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2-base", "wav2vec2-large", "whisper"])
@pytest.mark.parametrize("head", HEADS)
def test_transformers_gives_the_logits_of_every_head(name: str, head: str, tmp_path: Path) -> None:
    model = classifier(make(name), head, weighted=True)
    theirs = read(written(model, tmp_path / "model")[0])
    with torch.inference_mode():
        found = theirs(prepared(model.backbone, 1.7)).logits.numpy()
    np.testing.assert_allclose(found, logits(model, 1.7), atol=1e-4)


@pytest.mark.parametrize("state", [1, 2])
@pytest.mark.parametrize("name", ["wav2vec2-base", "wav2vec2-large", "hubert-base", "wavlm-base",
                                  "data2vec-audio"])  # fmt: skip
def test_the_papers_head_on_one_state_is_a_class_of_transformers(
    name: str, state: int, tmp_path: Path
) -> None:
    model = classifier(make(name), "linear", (state,))
    folder, reader = written(model, tmp_path / "model")
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(folder).eval()
    assert type(theirs).__name__ == reader
    assert type(theirs).__module__.startswith("transformers.models.")
    assert not (folder / "modeling_after.py").exists()
    for seconds in SECONDS:
        with torch.inference_mode():
            found = theirs(prepared(model.backbone, seconds)).logits.numpy()
        np.testing.assert_allclose(found, logits(model, seconds), atol=1e-4)


def test_a_batch_is_computed_without_what_pads_it(tmp_path: Path) -> None:
    model = classifier(make("whisper"))
    theirs = read(written(model, tmp_path / "model")[0])
    short, long = prepared(model.backbone, 0.6), prepared(model.backbone, 1.9)
    batch, mask = torch.zeros(2, long.shape[1]), torch.zeros(2, long.shape[1], dtype=torch.long)
    for i, row in enumerate((short, long)):
        batch[i, : row.shape[1]], mask[i, : row.shape[1]] = row, 1
    with torch.inference_mode():
        found = theirs(batch, mask).logits.numpy()
    np.testing.assert_allclose(found[0], logits(model, 0.6)[0], atol=1e-4)
    np.testing.assert_allclose(found[1], logits(model, 1.9)[0], atol=1e-4)


@pytest.mark.parametrize("name", ["wav2vec2-base", "whisper"])
def test_the_encoder_alone_is_read_by_automodel(name: str, tmp_path: Path) -> None:
    model = classifier(make(name))
    theirs = transformers.AutoModel.from_pretrained(written(model, tmp_path / "model")[0]).eval()
    own = model.backbone
    mine = {k: v for k, v in own.model.state_dict().items() if "masked_spec_embed" not in k}
    found = (theirs.encoder if name == "whisper" else theirs).state_dict()
    assert mine.keys() <= found.keys()
    assert all(torch.equal(weight, found[k]) for k, weight in mine.items())


@pytest.mark.parametrize("name", ["wav2vec2-base", "whisper"])
def test_after_model_reads_the_same_model_and_knows_its_encoder_again(
    name: str, tmp_path: Path
) -> None:
    model = classifier(make(name), weighted=True)
    folder, _ = written(model, tmp_path / "model")
    again, labels = EmotionClassifier.load(folder)
    assert labels == LABELS
    assert again.backbone.encoder_hash == model.backbone.encoder_hash
    np.testing.assert_allclose(logits(again, 1.1), logits(model, 1.1), atol=1e-6)
    assert backbones.load(folder).cnn_hash == model.backbone.cnn_hash


def test_whisper_hidden_states_are_transformers_own(tmp_path: Path) -> None:
    model = classifier(make("whisper"))
    folder, _ = written(model, tmp_path / "model")
    given = prepared(model.backbone, 1.28)  # an even number of spectrogram frames
    with torch.inference_mode():
        found, inside = read(folder).hidden(given)
        theirs = hidden_states(model.backbone, given[0].numpy())
    assert bool(inside.all())
    np.testing.assert_allclose(found[0], theirs[1], atol=1e-4)
    np.testing.assert_allclose(found[1], theirs[2], atol=1e-4)


# --- ONNX ----------------------------------------------------------------------------------------


def session(folder: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_gives_the_probabilities_of_every_family_at_every_length(
    name: str, tmp_path: Path
) -> None:
    model = classifier(make(name))
    onnx_file.write(portable.portable(model, LABELS), model.backbone.normalize, LABELS, tmp_path)
    run = session(tmp_path)
    assert json.loads(run.get_modelmeta().custom_metadata_map["labels"]) == list(LABELS.names)
    said = []
    long = (29.99, 31.7, 61.3) if name == "whisper" else (9.1,)  # one to three windows
    for seconds in (*SECONDS, *long):
        expected = torch.from_numpy(logits(model, seconds)).softmax(-1).numpy()
        (found,) = run.run(None, {"wave": wave(seconds)[None]})
        np.testing.assert_allclose(found, expected, atol=1e-4)
        said.append(found)
    assert np.ptp(np.concatenate(said), axis=0).max() > 0.01  # it hears something


@pytest.mark.parametrize("head", HEADS)
def test_onnx_gives_the_probabilities_of_every_head(head: str, tmp_path: Path) -> None:
    model = classifier(make("whisper"), head, weighted=True)
    onnx_file.write(portable.portable(model, LABELS), False, LABELS, tmp_path)
    for seconds in (0.2, 33.0):
        expected = torch.from_numpy(logits(model, seconds)).softmax(-1).numpy()
        (found,) = session(tmp_path).run(None, {"wave": wave(seconds)[None]})
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("reason", "counted"), [
    ("off by", lambda at, frames: at < int(frames) // 2),  # of the example, for ever
    ("can't be computed", lambda at, frames: torch.ones(1, int(frames), dtype=torch.bool)),
])  # fmt: skip
def test_a_trace_that_holds_a_length_for_fixed_is_refused(
    reason: str, counted: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = portable.portable(classifier(make("wav2vec2-base")), LABELS)
    monkeypatch.setattr(model, "_counted", counted)
    with pytest.raises(onnx_file.DiffersFromTorch, match=reason):
        onnx_file.write(model, True, LABELS, tmp_path)


def test_without_onnx_the_fix_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier(make("wav2vec2-base")).save(made(tmp_path / "model"), LABELS)
    monkeypatch.setattr(onnx_file, "PACKAGES", ("no_such_package",))
    with pytest.raises(MissingPackage, match=r"requirements-export\.txt"):
        export(tmp_path / "model", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir() if p.name != "hf"] == ["model"]


# --- the whole folder ----------------------------------------------------------------------------


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_an_export_goes_into_a_new_or_empty_folder_only(tmp_path: Path) -> None:
    classifier(make("wav2vec2-base")).save(made(tmp_path / "model"), LABELS)
    done = export(tmp_path / "model", made(tmp_path / "out"), onnx=False)
    assert "README.md" in done.files
    before = (tmp_path / "out" / "README.md").read_bytes()
    with pytest.raises(FileExistsError, match="new or empty"):
        export(tmp_path / "model", tmp_path / "out", onnx=False)
    assert (tmp_path / "out" / "README.md").read_bytes() == before


def test_embedded_weights_take_their_licence_along(tmp_path: Path) -> None:
    model = new_classifier(backbones.load("whisper-base"), 3)
    with torch.no_grad():  # the transformer was trained; its stem stays
        model.backbone.model.layers[0].fc1.weight.add_(0.1)
    model.save(made(tmp_path / "model"), LABELS)
    done = export(tmp_path / "model", tmp_path / "out", onnx=False)
    assert "OpenAI" in (done.folder / "LICENSE").read_text()
    said = (done.folder / "README.md").read_text()
    assert "license: mit" in said
    assert "the last hidden state is of no use" in said


def test_of_another_backbone_the_card_says_to_look_the_licence_up(tmp_path: Path) -> None:
    classifier(make("wav2vec2-base")).save(made(tmp_path / "model"), LABELS)
    done = export(tmp_path / "model", tmp_path / "out", onnx=False)
    assert "look up the licence" in (done.folder / "README.md").read_text()
    assert "LICENSE" not in done.files


def test_the_card_gives_no_number_without_an_interval(tmp_path: Path) -> None:
    whole = classifier(make("wav2vec2-base"))
    common = (LABELS.names, whole.backbone, None, "AfterForAudioClassification", False)
    assert "Not known" in card.text(Facts(), *common)
    quality = Quality("UA", 0.75, 0.6, 0.9, 40, "audit")
    assert "| UA | 75.0% | 60.0% to 90.0% | 40 | audit |" in card.text(
        Facts(quality=(quality,)), *common
    )


@pytest.mark.parametrize(("correct", "labels", "low", "high"), [
    (15, 20, 0.531, 0.888), (0, 10, 0.0, 0.278), (90, 100, 0.826, 0.945),
])  # fmt: skip
def test_the_interval_is_wilsons(correct: int, labels: int, low: float, high: float) -> None:
    """Expected numbers by R's binom.confint(methods = "wilson")."""
    found = card.accuracy(correct, labels, "accuracy", "")
    assert found.value == correct / labels
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


def test_the_cards_python_runs(
    tmp_path: Path, recordings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = classifier(make("wav2vec2-base"))
    model.save(made(tmp_path / "model"), LABELS)
    done = export(tmp_path / "model", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").symlink_to(done.folder)
    (tmp_path / "speech.wav").symlink_to(recordings[0].path)
    said = (done.folder / "README.md").read_text()
    first, second = [part.split("```")[0] for part in said.split("```python\n")[1:]]
    names: dict = {}
    exec(first, names)
    theirs = names["probs"].numpy()
    exec(second, names)
    assert names["labels"] == list(LABELS.names)
    np.testing.assert_allclose(theirs, names["probs"], atol=1e-4)
    assert "anger" in capsys.readouterr().out
