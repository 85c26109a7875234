"""A trained classifier for the world outside: a folder for transformers and ONNX, with its card.

    export(Path("run/models"), Path("shared/emotions"))

What is written: config, weights and preprocessor that `after_model` and transformers read (see
portable.py), model.onnx, README.md, and the licence of the encoder where it has to go along.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from after_model.classifier import EmotionClassifier
from after_model.export import card, onnx_file, portable
from after_model.export.card import Facts, Licence, Quality
from after_model.export.onnx_file import MissingPackage
from after_model.predicting import model_folder
from after_model.whole_folder import whole_folder

__all__ = [
    "Exported",
    "Facts",
    "Licence",
    "MissingPackage",
    "Quality",
    "card",
    "export",
]


@dataclass(frozen=True)
class Exported:
    """Where it is, which class of transformers reads it, and its files."""

    folder: Path
    reader: str
    files: tuple[str, ...]


def export(
    model: Path,
    to: Path,
    *,
    known: Facts | None = None,
    licence: Licence | None = None,
    onnx: bool = True,
) -> Exported:
    """Write the model of a folder (a version, a store, a learner's) to another, or nothing.

    known: what the card says of it; what the model's store knows where nothing is given. licence:
    of the encoder, where it is no embedded one. onnx: model.onnx beside. Raises ModelNotFound,
    FileExistsError where `to` holds something, MissingPackage where ONNX lacks its packages.
    """
    source = model_folder(model)
    with whole_folder(to) as folder:
        if onnx:
            onnx_file.check_packages()
        classifier, labels = EmotionClassifier.load(source)
        backbone = classifier.backbone
        licence = licence or card.licence(backbone)
        reader = portable.write(classifier, labels, folder)
        if onnx:
            traced = portable.portable(classifier, labels)
            onnx_file.write(traced, backbone.normalize, labels, folder)
        said = card.text(known or card.facts(source), labels.names, backbone, licence, reader, onnx)
        (folder / "README.md").write_text(said, encoding="utf-8")
        if licence and licence.text:
            shutil.copyfile(licence.text, folder / "LICENSE")
    return Exported(to, reader, tuple(sorted(path.name for path in to.iterdir())))
