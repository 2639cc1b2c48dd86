"""What a device is good at: whether it is here, and in which numbers it computes fast."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def usable_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" as a device that works; "auto" is the GPU where there is one.

    Raises ValueError with torch's reason for one that cannot be used here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"expected auto, cpu or cuda, got {name}")
        if device.type == "cuda" and device.index is None:  # as tensors on it will say
            device = torch.device("cuda", torch.cuda.current_device())
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ValueError(str(error).splitlines()[0]) from error
    return device


def fastest_dtype(device: torch.device, cpu_capabilities: Mapping[str, object] | None = None) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32.

    On processors that is AMX or AVX512-BF16; elsewhere bfloat16 is emulated and several times slower.
    cpu_capabilities: as torch tells them, unless given.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        known = torch.cpu.get_capabilities() if cpu_capabilities is None else cpu_capabilities
        native = bool(known.get("amx_bf16") or known.get("avx512_bf16"))
    return torch.bfloat16 if native else torch.float32


def flush_denormals() -> None:
    """Have this thread, and those that torch starts for it, take numbers below 1.2e-38 for zero.

    An Intel processor takes a hundred times as long for them. Attention makes many: what the softmax gives to keys that
    score less than the best one by 88 and more. Threads that run already do without it, so call it before torch
    computes anything.
    """
    torch.set_flush_denormal(True)
