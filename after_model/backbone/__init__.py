"""Speech backbones behind one interface: load() gives one by name, hub name or folder."""

from after_model.backbone.wav2vec2 import (
    DEFAULT,
    FAMILIES,
    WEIGHTS,
    Backbone,
    BackboneError,
    frame_mask,
    load,
)

__all__ = ["DEFAULT", "FAMILIES", "WEIGHTS", "Backbone", "BackboneError", "frame_mask", "load"]
