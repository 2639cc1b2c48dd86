"""Which devices there are, and in which numbers they compute."""

from __future__ import annotations

import pytest
import torch

from models.devices import fastest_dtype, usable_device

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False}, torch.float32),
        # Neither the tiles nor the width alone multiply it.
        ({"amx_tile": True, "amx_int8": True, "avx512_f": True, "avx512_vnni": True, "avx2": True}, torch.float32),
        ({}, torch.float32),  # as of a processor of another architecture
    ],
)
def test_a_processor_computes_in_bfloat16_where_it_multiplies_it(
    capabilities: dict[str, object], expected: torch.dtype
) -> None:
    assert fastest_dtype(CPU, capabilities) == expected


def test_this_processor_is_asked_unless_its_capabilities_are_given() -> None:
    own = torch.cpu.get_capabilities()
    if own["architecture"] == "x86_64":
        assert {"amx_bf16", "avx512_bf16"} <= own.keys()  # or they have other names now, and nothing would be fast
    assert fastest_dtype(CPU) == fastest_dtype(CPU, own)


def test_this_processor_is_asked_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {"amx_bf16": native})
        assert fastest_dtype(CPU) == dtype


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((6, 1), torch.float32),
        ((7, 5), torch.float32),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((10, 0), torch.bfloat16),
    ],
)
def test_a_gpu_computes_in_bfloat16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: torch.dtype
) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability)
    device = torch.device("cuda", 1)
    assert fastest_dtype(device, {"amx_bf16": expected != torch.bfloat16}) == expected
    assert asked == [device]


@needs_cuda
def test_this_gpu_is_asked_for_its_capability() -> None:
    native = torch.cuda.get_device_capability(CUDA)[0] >= 8
    assert fastest_dtype(CUDA) == (torch.bfloat16 if native else torch.float32)


def test_the_processor_is_usable() -> None:
    assert usable_device("cpu") == CPU


@needs_none
def test_auto_is_the_processor_where_there_is_no_gpu() -> None:
    assert usable_device("auto") == CPU


@needs_cuda
def test_auto_is_the_gpu_and_says_which() -> None:
    assert usable_device("auto") == usable_device("cuda") == usable_device("cuda:0") == CUDA
    assert torch.zeros(1, device=usable_device("cuda")).device == CUDA


@needs_cuda
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="device"):
        usable_device(f"cuda:{torch.cuda.device_count()}")


@needs_none
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_without_a_gpu_none_is_usable(name: str) -> None:
    with pytest.raises(ValueError, match="CUDA|NVIDIA"):
        usable_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cpu:", "cuda:-1", "fpga", "hpu", "meta"])
def test_what_is_no_device_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError) as refused:
        usable_device(name)
    assert refused.value.args[0] and "\n" not in refused.value.args[0]
