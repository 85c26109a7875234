"""eGeMAPS + SVM: 88 functionals of openSMILE's eGeMAPSv02 and a linear SVM (Eyben et al. 2016).

The floor of speech emotion recognition before representations were learnt; beyond the paper.
openSMILE is for non-commercial use alone, and an optional extra: requirements-opensmile.txt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulate.systems._opensmile import Functionals


@dataclass(frozen=True)
class EgemapsSvm(Functionals):
    """See _opensmile.py."""

    name: ClassVar[str] = "egemaps-svm"
    feature_set: ClassVar[str] = "eGeMAPSv02"

    @property
    def title(self) -> str:
        return "eGeMAPS + SVM"


SYSTEM = EgemapsSvm
