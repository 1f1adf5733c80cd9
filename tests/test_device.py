import torch

from kardlib.device import announce_device, describe_device, pick_device


def test_the_device_comes_with_its_reason() -> None:
    device = pick_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert f"torch {torch.__version__}" in device.reason
    assert describe_device().strip() and "/" not in describe_device()


def test_bfloat16_only_on_a_gpu_that_has_it() -> None:
    device = pick_device()
    has = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    assert device.bf16 == has
    assert device.bf16 or "no bfloat16" in device.reason or "float32 gives the same numbers" in device.reason


def test_it_is_announced_once_and_with_its_reason(capsys) -> None:
    announce_device.cache_clear()
    for _ in range(2):
        announce_device()
    (line,) = capsys.readouterr().out.splitlines()
    device = pick_device()
    assert line.startswith(f"device: {device.type} in ") and line.endswith(f"({device.reason})")
