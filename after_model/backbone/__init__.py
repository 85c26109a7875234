"""Speech backbones behind one interface: load() gives one by name, hub name or folder."""

from after_model.backbone.base import Backbone, BackboneError, frame_mask
from after_model.backbone.loading import DEFAULT, FAMILIES, WEIGHTS, load

__all__ = ["DEFAULT", "FAMILIES", "WEIGHTS", "Backbone", "BackboneError", "frame_mask", "load"]
