"""The compared systems, as small as tests of their behaviour want them."""

from __future__ import annotations

from collections.abc import Callable

from simulate.systems import System
from simulate.systems.cpac import Cpac
from simulate.systems.glam import Glam
from simulate.systems.gm_tcn import GmTcn
from simulate.systems.light import LightSERNet
from simulate.systems.tim_net import TimNet

Make = Callable[[str], System]
"""Of a tiny backbone's folder."""

SMALL: dict[str, Make] = {
    "cpac": lambda _: Cpac(epochs=2, samples=20_000),
    "glam": lambda _: Glam(epochs=2, segment_s=0.5, width=0.25),
    "gm-tcn": lambda _: GmTcn(epochs=2, samples=12_000, blocks=2),
    "light": lambda _: LightSERNet(epochs=2, seconds=0.6, width=0.25),
    "tim-net": lambda _: TimNet(epochs=2, samples=12_000, blocks=2),
}
"""By name; what is not here is used as it is."""
