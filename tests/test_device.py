from pathlib import Path

import torch

from kardlib.device import describe_device, pick_device


def test_the_device_comes_with_its_reason() -> None:
    device = pick_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert f"torch {torch.__version__}" in device.reason
    assert describe_device().strip() and "/" not in describe_device()


def test_bfloat16_only_where_the_hardware_has_it() -> None:
    device = pick_device()
    if device.type == "cuda":
        assert device.bf16 == (torch.cuda.get_device_capability() >= (8, 0))
    else:
        cpuinfo = Path("/proc/cpuinfo")
        flags = cpuinfo.read_text() if cpuinfo.exists() else ""
        assert device.bf16 == ("avx512_bf16" in flags or "amx_bf16" in flags)
