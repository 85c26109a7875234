"""Device and precision follow from what the machine has."""

from __future__ import annotations

import pytest
import torch

from after_model.device import autocast, resolve_device, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("available", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(monkeypatch, available, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("auto").type == expected


def test_a_named_device_is_taken_as_it_is():
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_cuda_trains_in_the_half_precision_it_has(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert resolve_precision(CUDA) == expected


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
