"""Backbones by name, and what their weights are called; loaded once a process."""

from __future__ import annotations

from functools import lru_cache

from after_model import backbone
from after_model.backbone import Backbone


@lru_cache(maxsize=2)
def loaded(name: str) -> Backbone:
    """The backbone as it is; not to be trained."""
    return backbone.load(name)


@lru_cache(maxsize=16)
def weights_of(name: str) -> str:
    """A hash of all of its weights and of how they are used."""
    return loaded(name).encoder_hash
