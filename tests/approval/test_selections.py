"""Golden selections: what each strategy and start asks for on one made-up pool at fixed seeds.

A change here is a change of what people are asked: make it on purpose, and then write the file
anew with `python tests/approval/test_selections.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from after_model import acquisition, initialization
from after_model.acquisition import Pool

APPROVED = Path(__file__).with_name("selections.json")
SIZE, CLASSES, WIDTH, SAMPLES, K = 400, 5, 24, 8, 12
SEEDS = (0, 1)


def made_up_pool() -> Pool:
    """Twelve loose groups, a classifier that is unsure between them, 8 dropout samples of it."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(12, WIDTH))
    embeddings = centres[rng.integers(12, size=SIZE)] + rng.normal(size=(SIZE, WIDTH))
    weights = 0.3 * rng.normal(size=(WIDTH, CLASSES))
    logits = (embeddings * (rng.random((SAMPLES, 1, WIDTH)) > 0.3)) @ weights
    mc_probs = np.exp(logits)
    mc_probs /= mc_probs.sum(axis=2, keepdims=True)
    return Pool(
        probs=mc_probs.mean(axis=0),
        embeddings=embeddings,
        mc_probs=mc_probs,
        surprisal=rng.gamma(2.0, size=(SIZE, 10)) + embeddings[:, :10] ** 2,
    )


def selections() -> dict[str, dict[str, list[list[int]]]]:
    """By kind, then name: the K indices for each of SEEDS."""
    pool = made_up_pool()
    strategies, starts = {}, {}
    for name in acquisition.names():
        strategy = acquisition.get(name)
        strategies[name] = [
            strategy.select(pool, K, np.random.default_rng(seed)).tolist() for seed in SEEDS
        ]
    for name in initialization.names():
        start = initialization.get(name)
        starts[name] = [
            start.select(pool.need("embeddings"), K, np.random.default_rng(seed)).tolist()
            for seed in SEEDS
        ]
    return {"strategies": strategies, "starts": starts}


@pytest.fixture(scope="module")
def selected() -> dict[str, dict[str, list[list[int]]]]:
    return selections()


@pytest.mark.parametrize("name", acquisition.names())
def test_a_strategy_asks_for_the_approved_utterances(name, selected):
    assert selected["strategies"][name] == json.loads(APPROVED.read_text())["strategies"][name]


@pytest.mark.parametrize("name", initialization.names())
def test_a_start_asks_for_the_approved_utterances(name, selected):
    assert selected["starts"][name] == json.loads(APPROVED.read_text())["starts"][name]


def test_nothing_approved_has_gone():
    approved = json.loads(APPROVED.read_text())
    assert sorted(approved["strategies"]) == acquisition.names()
    assert sorted(approved["starts"]) == initialization.names()


if __name__ == "__main__":
    lines = []
    for kind, by_name in selections().items():
        rows = ",\n".join(f'    "{name}": {rows}' for name, rows in by_name.items())
        lines.append(f'  "{kind}": {{\n{rows}\n  }}')
    APPROVED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
