"""The machine: a clock that waits for the GPU, and the fastest matrix product it makes."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from after_model.device import resolve_precision
from benchmarks.settings import Settings


class Stopwatch:
    """Wall and CPU seconds since it was made."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")
        self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        self._wait()
        return time.perf_counter() - self._wall, time.process_time() - self._cpu

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


class Machine:
    """A contestant that multiplies matrices and does nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._device = settings.device
        self._threads = settings.threads

    def description(self) -> dict[str, str]:
        """What the results depend on."""
        import transformers

        cuda = self._device.startswith("cuda")
        return {
            "device": torch.cuda.get_device_name() if cuda else _processor(),
            "threads": str(self._threads),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def precision(self) -> str:
        """What "auto" trains in here."""
        return resolve_precision(torch.device(self._device))

    def peak_gflops(self, dtype: str, seconds: float = 1.5) -> float:
        """GFLOP/s of the fastest of some large square products."""
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        size = 8192 if self._device.startswith("cuda") else 2048
        a = torch.randn(size, size, device=self._device).to(kind)
        b = torch.randn(size, size, device=self._device).to(kind)
        with torch.inference_mode():
            a @ b
            best, spent = float("inf"), 0.0
            while spent < seconds:
                watch = Stopwatch(self._device)
                a @ b
                took, _ = watch.read()
                best, spent = min(best, took), spent + took
        return 2 * size**3 / best / 1e9


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
