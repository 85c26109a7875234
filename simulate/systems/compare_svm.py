"""ComParE + SVM: 6,373 functionals of openSMILE (Schuller et al. 2016), and a linear SVM.

The floor of speech emotion recognition before representations were learnt; beyond the paper.
openSMILE is for non-commercial use alone, and an optional extra: requirements-opensmile.txt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from simulate.systems._opensmile import Functionals


@dataclass(frozen=True)
class CompareSvm(Functionals):
    """See _opensmile.py."""

    name: ClassVar[str] = "compare-svm"
    feature_set: ClassVar[str] = "ComParE_2016"

    @property
    def title(self) -> str:
        return "ComParE + SVM"


SYSTEM = CompareSvm
