"""Which device and which number format to compute with, and the reason, so that a run can print it."""

import contextlib
import ctypes
import functools
import gc
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil

DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/kfd"))  # of GPUs, where one is installed
SLOTS = 2  # jobs that run at a time on a machine, whichever notebook asks for them: more would want for memory


class Device(NamedTuple):
    """`type` is "cuda" or "cpu"; `bf16` says whether to compute in bfloat16 (else in float32)."""

    type: str
    bf16: bool
    reason: str


@functools.cache
def pick_device() -> Device:
    """CUDA where torch can use it; bfloat16 only there and where the GPU multiplies it. Imports torch.

    A CPU computes in float32: one without instructions for bfloat16 emulates it hundreds of times slower, and on one
    with them the nano models gain a quarter of the time and numbers that no other machine repeats (docs/LOG.md). T5
    overflows in float16.
    """
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        has = f"compute capability {major}.{minor} has {'' if major >= 8 else 'no '}bfloat16"
        return Device("cuda", major >= 8, f"{version} finds {torch.cuda.get_device_name()}, whose {has}")
    built = f"built for CUDA {torch.version.cuda} but finds no GPU" if torch.version.cuda else "built without CUDA"
    return Device("cpu", False, f"{version} is {built}; on CPUs float32 keeps the numbers of machines close")


@functools.cache
def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16, which is printed: without them it would be emulated."""
    has = not {"avx512_bf16", "amx_bf16"}.isdisjoint(read_cpuinfo("flags").split())
    print(f"this CPU has {'' if has else 'no '}instructions for bfloat16", flush=True)
    return has


@functools.cache
def announce_device() -> None:
    """Print which device this process trains on, and why; once. Imports torch."""
    device = pick_device()
    print(f"device: {device.type} in {'bfloat16' if device.bf16 else 'float32'} ({device.reason})", flush=True)


def prepare_torch(threads: int) -> None:
    """Compute on so many threads of the CPU, and with oneDNN. Imports torch."""
    import torch

    torch.set_num_threads(threads)
    multiply_with_onednn()


@contextlib.contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Compute on so many threads of the CPU within this context. Imports torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def prepared_torch(threads: int) -> Iterator[None]:
    """As `prepare_torch`, within this context: afterwards torch's own kernels multiply again, to the bit."""
    with on_threads(threads):
        kernels = replace_kernels()
        try:
            yield
        finally:
            del kernels


def replace_kernels() -> Any:
    """Let oneDNN, not MKL, multiply this process's float32 matrices on the CPU. Imports torch.

    MKL leaves AVX-512 to Intel's processors; oneDNN, also a part of torch, uses it on all that have it. On an AMD EPYC
    (Zen 5) it multiplies twice as fast, and training takes a third less time (benchmarks/onednn.py). Torch's
    own kernels stay replaced as long as what is returned is kept.
    """
    import torch

    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return None
    # kernels that are kept, one for each shape of a matrix: a thousand of them take half a gigabyte
    os.environ |= dict.fromkeys(("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"), "16")
    kernels = {name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm")}

    def multiply(a: Any, b: Any, bias: Any = None) -> Any:
        return torch.ops.mkldnn._linear_pointwise(a, b.t(), bias, "none", [], "")  # a @ b + bias

    def fits(a: Any, b: Any) -> bool:
        return a.dtype == b.dtype == torch.float32 and a.shape[1] == b.shape[0] and min(*a.shape, *b.shape) > 0

    def mm(keys: Any, a: Any, b: Any) -> Any:
        if not fits(a, b):
            return kernels["mm"].call_boxed(keys, a, b)
        if a.stride(0) == 1 and a.shape[0] > b.shape[1]:  # a weight's gradient: a third faster with the sides changed
            return multiply(b.t(), a.t()).t()
        return multiply(a, b)

    def addmm(keys: Any, bias: Any, a: Any, b: Any, *, beta: float = 1, alpha: float = 1) -> Any:
        if fits(a, b) and bias.dtype == a.dtype and bias.shape == b.shape[1:] and beta == alpha == 1:
            return multiply(a, b, bias)
        return kernels["addmm"].call_boxed(keys, bias, a, b, beta=beta, alpha=alpha)

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):  # it says that kernels are replaced
        library.impl("mm", mm, "CPU", with_keyset=True)
        library.impl("addmm", addmm, "CPU", with_keyset=True)
    return library


multiply_with_onednn = functools.cache(replace_kernels)  # for as long as this process lives


def free_memory() -> tuple[int, str]:
    """Bytes that a model can take, and of what: the GPU where there is one, else this machine. Imports torch."""
    if pick_device().type == "cuda":
        import torch

        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by torch, for the next one who asks
        return torch.cuda.mem_get_info()[0] + kept, "the GPU"
    return psutil.virtual_memory().available, "this machine"


def release_memory() -> None:
    """Give the memory that this process has no more use for back to the system, for the next job, here or elsewhere.

    C's allocator keeps nearly all of it for this process: after a training several GB, which `free_memory` of another
    one then lacks. Only glibc can be told to let go.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, TypeError):  # another C library; Windows
        ctypes.CDLL(None).malloc_trim(0)


def slot_memory() -> float:
    """Bytes of this machine's memory for each of `SLOTS` jobs; no bound where a GPU computes, for one job at a time."""
    return math.inf if pick_device().type == "cuda" else psutil.virtual_memory().total / SLOTS


def describe_device() -> str:
    """The device as provenance names it: the GPU if torch has one, else the CPU.

    torch takes seconds to import, so that it is only asked where it is there already, or a GPU's driver is.
    """
    if "torch" in sys.modules or any(driver.exists() for driver in DRIVERS):
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    return read_cpuinfo("model name") or platform.processor() or platform.machine()


def read_cpuinfo(field: str) -> str:
    """What Linux says of the first CPU; empty elsewhere."""
    cpus = Path("/proc/cpuinfo")
    found = re.search(rf"{field}\s*:\s*(\S.*)", cpus.read_text()) if cpus.exists() else None
    return found[1].strip() if found else ""
