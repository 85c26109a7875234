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
from simulate.systems.mfcc_plp_svm import MfccPlpSvm
from simulate.systems.soft_label_dnn import SoftLabelDnn
from simulate.systems.tim_net import TimNet
from simulate.systems.tsp_inca import TspInca

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
    "soft-label-dnn": lambda _: SoftLabelDnn(epochs=2, width=128),
    "tim-net": lambda _: TimNet(epochs=2, samples=12_000, blocks=2),
    "tsp-inca": lambda _: TspInca(sizes=(100,), nca_steps=3),
}
"""By name; what is not here is used as it is."""

EXTRA = frozenset({"compare-svm", "egemaps-svm"})
"""Those that need what `make install` doesn't install."""
