"""Fixtures that every test may use: real corpora where they are, audio files, a tiny backbone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from after_model.audio import Utterance

# Tests run side by side and their models are tiny: threads would only wait for each other. Set
# before any test imports torch, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
INTEGRATION = ROOT / "tests" / "integration"
JOURNEYS = {"test_faults.py", "test_postgresql.py", "test_story.py"}  # half of their time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests with a Label Studio come first, because they take longest."""
    items.sort(key=lambda item: INTEGRATION not in item.path.parents)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For `--dist loadscope`: tests that share a Label Studio run in one process, of two; else a
    file's do.

    Marking them for `--dist loadgroup` would say the same, but xdist 3.8 loses the marks with
    pytest 9.2.
    """
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class TwoLabelStudios(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            if not file.startswith("tests/integration/"):
                return file
            return "journeys" if Path(file).name in JOURNEYS else "label-studio"

    return TwoLabelStudios(config, log)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real corpora: AFTER_CORPORA, or shared/corpora beside the repository."""
    named = os.environ.get("AFTER_CORPORA")
    folder = Path(named) if named else ROOT.parent / "shared" / "corpora"
    if not folder.is_dir():
        pytest.skip(f"no corpora in {folder}; set AFTER_CORPORA to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """A multiprocessing context whose processes have imported the library already.

    They are forked from a server that has done nothing else; spawning would import torch and
    transformers, some seconds, for each.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["after_model.active_learning", "transformers.models.wav2vec2.modeling_wav2vec2"]
    )
    return context


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """write_wav(name="a.wav", samples=None, rate=16_000, **soundfile_options) -> path.

    `samples` is [S] or [S, channels]; without it, a second of a 440 Hz sine.
    """

    def write(
        name: str = "a.wav",
        samples: np.ndarray | None = None,
        rate: int = 16_000,
        **options: str,
    ) -> Path:
        if samples is None:
            samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, **options)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wav2vec 2.0 of some thousand random weights, 50 frames a second."""
    import torch
    import transformers

    config = transformers.Wav2Vec2Config(
        conv_dim=(8, 8, 8), conv_kernel=(10, 8, 8), conv_stride=(8, 8, 5),
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, layerdrop=0.0,
        num_codevectors_per_group=8, num_codevector_groups=2, codevector_dim=8,
        proj_codevector_dim=8,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny-backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    """Sixteen synthetic recordings of 0.3 to 1.4 s: even ones hum, odd ones hiss."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(16):
        size = int(rng.integers(4_800, 22_400))
        noise = rng.normal(size=size)
        hum = np.sin(np.arange(size) * rng.uniform(0.05, 0.15))
        path = folder / f"{i:02d}.wav"
        soundfile.write(path, 0.05 * noise + 0.4 * hum if i % 2 == 0 else 0.2 * noise, 16_000)
        utterances.append(Utterance(path.stem, path))
    return utterances
