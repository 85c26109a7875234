"""Device and precision follow from what the machine has."""

from __future__ import annotations

import contextlib

import pytest
import torch

from after_model.device import autocast, cores, resolve_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto").type == expected


def test_a_named_device_is_taken_as_it_is():
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_cuda_trains_in_the_half_precision_that_it_does_not_emulate(monkeypatch, native, expected):
    def supported(including_emulation=True):
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    assert resolve_precision(CUDA) == expected


def test_the_card_that_is_asked_for_its_precision_is_the_one_given(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)

    def device(card):
        asked.append(card)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "device", device)
    resolve_precision(torch.device("cuda", 1))
    assert asked == [torch.device("cuda", 1)]


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert cores() == 3


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_trains_in_bf16_where_it_multiplies_it(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    assert resolve_precision(CPU) == expected


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_taken_as_it_is(name):
    assert resolve_precision(CPU, name) == name


def test_an_unknown_precision_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'fp8'.*auto, fp32, bf16, fp16"):
        resolve_precision(CPU, "fp8")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_autocast_multiplies_in_the_precision(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
