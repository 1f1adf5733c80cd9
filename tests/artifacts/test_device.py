import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.profiler import profile

from kardlib.artifacts.device import (
    announce_device,
    describe_device,
    multiply_with_onednn,
    pick_device,
    release_memory,
)


def test_the_device_comes_with_its_reason() -> None:
    device = pick_device()
    assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert f"torch {torch.__version__}" in device.reason
    assert describe_device().strip() and "/" not in describe_device()


def test_a_gpu_is_named_also_where_nothing_has_imported_torch(monkeypatch, tmp_path) -> None:
    gpu = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "a GPU"))
    monkeypatch.setattr("kardlib.artifacts.device.DRIVERS", (tmp_path / "none", tmp_path))
    monkeypatch.setattr(
        "builtins.__import__", lambda name, *rest, known=__import__: gpu if name == "torch" else known(name, *rest)
    )
    monkeypatch.delitem(sys.modules, "torch")
    assert describe_device() == "a GPU"


def test_bfloat16_only_on_a_gpu_that_has_it() -> None:
    device = pick_device()
    has = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    assert device.bf16 == has
    assert device.bf16 or "no bfloat16" in device.reason or "float32 keeps the numbers" in device.reason


def test_it_is_announced_once_and_with_its_reason(capsys) -> None:
    announce_device.cache_clear()
    for _ in range(2):
        announce_device()
    (line,) = capsys.readouterr().out.splitlines()
    device = pick_device()
    assert line.startswith(f"device: {device.type} in ") and line.endswith(f"({device.reason})")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to give memory back")
def test_memory_that_is_no_longer_used_goes_back_to_the_system() -> None:
    """Of blocks with others in between that stay, as after a training, C's allocator keeps all for this process."""

    def resident() -> float:
        return psutil.Process().memory_info().rss / 1e6

    blocks = [bytearray(100_000) for _ in range(4_000)]  # too small to be mapped each for itself
    used, blocks[:] = resident(), blocks[::100]
    kept = resident()
    release_memory()
    assert used - kept < 100, "nothing to give back: the test says nothing"
    assert used - resident() > 300


def products(dtype: str) -> dict[str, list]:
    """What matrix products give with oneDNN's kernels, in a process of its own."""
    multiply_with_onednn()
    multiply_with_onednn()  # asked for again, nothing changes
    generator = torch.Generator().manual_seed(0)
    shapes = (40, 24), (56, 24), (56,), (40, 56)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    x, weight, bias, target = (tensor.to(getattr(torch, dtype)).requires_grad_() for tensor in drawn)
    with profile() as profiled:
        y = torch.nn.functional.linear(x, weight, bias) + x @ weight.T  # addmm and mm, and the gradients' mm
        torch.nn.functional.mse_loss(y, target).backward()
        half = torch.addmm(bias, x, weight.T, beta=0.5)
        none = x[:0] @ weight.T
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        x @ weight
    found = {"y": y, "x": x.grad, "weight": weight.grad, "bias": bias.grad, "half": half, "none": none}
    assert all(tensor.dtype == x.dtype for tensor in found.values())
    calls = [[event.count for event in profiled.key_averages() if event.key == "mkldnn::_linear_pointwise"]]
    return {name: tensor.tolist() for name, tensor in found.items()} | {"calls": calls}


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch does not multiply with MKL")
def test_onednn_multiplies_float32_as_float64_says_and_leaves_the_rest_alone() -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        single, double, half = pool.map(products, ["float32", "float64", "bfloat16"])
    assert (single.pop("calls"), double.pop("calls"), half.pop("calls")) == ([[6]], [[]], [[]])
    for name, expected in double.items():
        torch.testing.assert_close(torch.tensor(single[name]), torch.tensor(expected), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(torch.tensor(half[name]), torch.tensor(expected), rtol=0.1, atol=0.1)
