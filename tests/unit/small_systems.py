"""The compared systems, as small as tests of their behaviour want them."""

from __future__ import annotations

from collections.abc import Callable

from simulate.systems import System
from simulate.systems.aloe import Aloe
from simulate.systems.cnn_dtpm_svm import CnnDtpmSvm
from simulate.systems.cnn_lstm import CnnLstm
from simulate.systems.cnn_svm_ma import CnnSvmMa
from simulate.systems.cnn_svm_zhang import CnnSvmZhang
from simulate.systems.cpac import Cpac
from simulate.systems.dcnn import Dcnn
from simulate.systems.emobox import EmoBox
from simulate.systems.glam import Glam
from simulate.systems.gm_tcn import GmTcn
from simulate.systems.light import LightSERNet
from simulate.systems.lssed import Lssed
from simulate.systems.mfcc_plp_svm import MfccPlpSvm
from simulate.systems.pseudo_tapt import PseudoTapt
from simulate.systems.rh_emo import RhEmo
from simulate.systems.soft_label_dnn import SoftLabelDnn
from simulate.systems.tim_net import TimNet
from simulate.systems.tsp_inca import TspInca
from simulate.systems.w2v2_l_robust import W2v2LRobust

Make = Callable[[str], System]
"""Of a tiny backbone's folder."""

SMALL: dict[str, Make] = {
    "aloe": lambda encoder: Aloe(encoder=encoder),
    "cnn-dtpm-svm": lambda _: CnnDtpmSvm(alexnet="random"),
    "cnn-lstm": lambda _: CnnLstm(alexnet="random", lengths=(32,), lstm_epochs=2),
    "cnn-svm-ma": lambda _: CnnSvmMa(alexnet="random"),
    "cnn-svm-zhang": lambda _: CnnSvmZhang(epochs=2),
    "cpac": lambda _: Cpac(epochs=2, samples=20_000),
    "dcnn": lambda _: Dcnn(most=20),
    "emobox": lambda encoder: EmoBox(epochs=2, encoder=encoder),
    "glam": lambda _: Glam(epochs=2, segment_s=0.5, width=0.25),
    "gm-tcn": lambda _: GmTcn(epochs=2, samples=12_000, blocks=2),
    "light": lambda _: LightSERNet(epochs=2, seconds=0.6, width=0.25),
    "mfcc-plp-svm": lambda _: MfccPlpSvm(),
    "pseudo-tapt": lambda encoder: PseudoTapt(
        epochs=2, encoder=encoder, clusters=(4, 8), first_epochs=1, second_epochs=1
    ),
    "rh-emo": lambda _: RhEmo(
        epochs=2, frames=64, hidden=16, width=1, first_epochs=1, second_epochs=1
    ),
    "soft-label-dnn": lambda _: SoftLabelDnn(epochs=2, width=128),
    "tim-net": lambda _: TimNet(epochs=2, samples=12_000, blocks=2),
    "lssed": lambda _: Lssed(epochs=2, layers=14, width=16, seconds=0.6, pixels=64),
    "tsp-inca": lambda _: TspInca(sizes=(100,), nca_steps=3),
    "w2v2-l-robust": lambda encoder: W2v2LRobust(epochs=2, encoder=encoder),
    "w2v2-l-robust, SVM": lambda encoder: W2v2LRobust(encoder=encoder, tuned=False),
}
"""By name; what is not here is used as it is."""

EXTRA = frozenset({"compare-svm", "egemaps-svm"})
"""Those that need what `make install` doesn't install."""
