"""Training by several processes, on the GPUs of one machine or of several: torchrun, started from wherever training is.

    train("student", (examples, settings, seed), folder, ComputeSettings(processes=4))

writes what is to be trained into `folder/checkpoints`, starts torchrun as a process of its own (so it works in a
notebook, whose kernel must not touch a GPU first), prints what the processes print and returns when `folder` holds the
model. Every further machine runs `kard join NUMBER` with the same store, a folder that all machines share under one
path: it looks there for what the first machine has begun, and joins. torchrun trusts whoever reaches its address: keep
that inside your network. Students and rerankers are trained so; RAG's retriever (`rag.py`), ReAugKD, ranking and
writing use one process.

Tests run all of this on CPUs (gloo). Nothing here has run on more than one GPU (NCCL), and FSDP in the tests only:
accelerate refuses it on CPUs, which the tests call accelerators of another kind.
"""

import contextlib
import errno
import importlib
import json
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from kardlib import settings as groups
from kardlib.artifacts.device import announce_device
from kardlib.artifacts.store import Kind, write_json
from kardlib.errors import KardError
from kardlib.settings import ComputeSettings

BOARD = "together.json"  # in the store: what the first machine trains, for the others to join
JOB = "job.json"  # in an artifact's checkpoints: what is to be trained
FAILED = "failed.txt"  # beside it: the sentence of a process that met a KardError
ERROR = re.compile(r"(?:\[rank\d+\]: ?)?((?:\w+\.)*\w*(?:Error|Exception): .+)")  # the last line of a traceback


class LaunchError(KardError, RuntimeError):
    """Processes that should train together cannot be started or have failed; the message is one sentence."""


# ---------------------------------------------------------------------------------------------------------------------
# What is trained


def train(kind: Kind, work: tuple[Any, ...], folder: Path, compute: ComputeSettings) -> None:
    """Train here, or in as many processes as `compute` says; `work` is what the kind's builder takes after the folder.

    Raises LaunchError.
    """
    batch = next(part.batch for part in work if hasattr(part, "batch"))
    processes = plan_processes(compute, batch, 0 if compute == ComputeSettings() else count_gpus())
    if processes * compute.machines == 1 and compute.strategy == "ddp":
        announce_device()
        kind.build(work, folder)
    else:
        train_together(kind, work, folder, compute.model_copy(update={"processes": processes}))


def count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def plan_processes(compute: ComputeSettings, batch: int, gpus: int) -> int:
    """How many processes each machine starts where it has so many GPUs (0: they compute on CPUs). Raises LaunchError.

    Left to itself, it takes as many GPUs as divide the batch evenly.
    """
    fitting = [n for n in range(1, batch + 1) if batch % (n * compute.machines) == 0]
    processes = compute.processes or max((n for n in fitting if n <= max(gpus, 1)), default=max(gpus, 1))
    check_gpus(processes, gpus)
    if processes not in fitting:
        parts = f"{processes} process{'es' * (processes > 1)}"
        parts += f" on each of {compute.machines} machines" if compute.machines > 1 else ""
        fits = f"set compute.processes to {' or '.join(map(str, fitting))}" if fitting else "lower compute.machines"
        raise LaunchError(f"a batch of {batch} cannot be divided evenly among {parts}: {fits}, or change the batch")
    if compute.strategy == "fsdp" and not gpus:
        raise LaunchError(
            "compute.strategy = fsdp divides a model among GPUs, and this machine has none that torch can use: set it "
            "to ddp"
        )
    return processes


def check_gpus(processes: int, gpus: int) -> None:
    """Raises LaunchError where GPUs are too few; a machine without any computes on its CPU."""
    if gpus and processes > gpus:
        raise LaunchError(
            f"compute.processes = {processes}, but this machine has {gpus} GPU{'s' * (gpus > 1)}: lower it, or divide "
            "the work among more machines (compute.machines)"
        )


# ---------------------------------------------------------------------------------------------------------------------
# The machines


def train_together(kind: Kind, work: tuple[Any, ...], folder: Path, compute: ComputeSettings) -> None:
    """Be the first machine: write the job, show it to the others, and start this machine's processes.

    Raises LaunchError.
    """
    write_job(kind, work, folder, compute)
    begun = {"id": secrets.token_hex(4), "folder": folder.name} | compute.model_dump(mode="json")
    board = folder.parent / BOARD
    on = f" on each of {compute.machines} machines, which meet at {compute.address}" if compute.machines > 1 else ""
    print(f"{folder.name}: {compute.processes} processes{on} ({compute.strategy})", flush=True)
    if compute.machines > 1:
        check_port(*split_address(str(compute.address)))
        write_json(board, begun)
    try:
        run_agent(folder, begun, machine=0)
    finally:
        if compute.machines > 1:
            board.unlink(missing_ok=True)


def write_job(kind: Kind, work: tuple[Any, ...], folder: Path, compute: ComputeSettings) -> None:
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / FAILED).unlink(missing_ok=True)
    job = {"builder": kind.builder, "sharded": compute.strategy == "fsdp", "wait": compute.wait, "work": work}
    (checkpoints / JOB).write_text(json.dumps(job, default=encode), "utf-8")


def join(root: Path, machine: int) -> None:
    """Be another machine: join one training after the other that the first one begins in the store, until interrupted.

    What fails is said, and the next one awaited: the first machine, run again, goes on with it. Raises LaunchError
    where the first machine cannot be reached or this one has too few GPUs.
    """
    if machine < 1:
        raise LaunchError("the first machine joins nobody: there, run what is to be made, with compute.machines set")
    print(f"machine {machine} waits for what the first one trains in {root}", flush=True)
    seen, joined, since = "", "", 0.0
    while True:
        begun = read_board(root / BOARD)
        if begun and begun["id"] != joined and machine < begun["machines"]:
            if begun["id"] != seen:
                seen, since = begun["id"], time.monotonic()
                check_gpus(begun["processes"], count_gpus())
            if answers(begun["address"]):
                joined = begun["id"]
                print(f"{begun['folder']}: {begun['processes']} processes here ({begun['strategy']})", flush=True)
                try:
                    run_agent(root / begun["folder"], begun, machine)
                except LaunchError as error:
                    print(f"kard: {error}", file=sys.stderr, flush=True)
            elif time.monotonic() > since + begun["wait"]:
                raise LaunchError(
                    f"the first machine did not answer at compute.address = {begun['address']} within {begun['wait']} "
                    "seconds: is that address reachable from here, and does it still train?"
                )
        time.sleep(0.2)


def read_board(file: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        return None


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def check_port(host: str, port: int, seconds: float = 10) -> None:
    """Raises LaunchError where this machine cannot be met at the address; processes of a killed run end in seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return socket.create_server((host, port)).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise LaunchError(
                    f"the machines cannot meet at compute.address = {host}:{port} ({error.strerror or error}): give a "
                    "name of the first machine, on which this runs, and a free port"
                ) from error
        time.sleep(0.2)


def answers(address: str) -> bool:
    """Whether the first machine listens."""
    try:
        socket.create_connection(split_address(address), timeout=5).close()
    except OSError:
        return False
    return True


def run_agent(folder: Path, begun: Mapping[str, Any], machine: int) -> None:
    """Run torchrun for this machine's processes and print what they print. Raises LaunchError."""
    command = [sys.executable, "-m", "kardlib.artifacts.launch", "agent", *torchrun_arguments(begun, machine)]
    command += ["-m", "kardlib.artifacts.launch", "work", str(folder.resolve())]
    package = str(Path(__file__).resolve().parents[2])
    threads = max(1, (os.cpu_count() or 1) // begun["processes"])
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        text=True, errors="replace",
    )  # fmt: skip
    last: deque[str] = deque(maxlen=2000)
    with ended(process):
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            last.append(line)
        process.wait()
    if process.returncode:
        raise LaunchError(explain(folder, begun, list(last)))


def torchrun_arguments(begun: Mapping[str, Any], machine: int) -> list[str]:
    """One machine finds a free port itself; several meet at the address, where the first one listens."""
    if begun["machines"] == 1:
        meet = ["--standalone"]
    else:
        host, port = split_address(begun["address"])
        meet = ["--rdzv-id", begun["id"], "--rdzv-conf", f"timeout={begun['wait']}", "--node-rank", str(machine)]
        meet += ["--nnodes", str(begun["machines"]), "--master-addr", host, "--master-port", str(port)]
    return [*meet, "--nproc-per-node", str(begun["processes"])]


@contextlib.contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """Leave no process behind, whatever happens: their standard input ends with this process, and so do they."""
    try:
        yield
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        process.wait()


def explain(folder: Path, begun: Mapping[str, Any], lines: Sequence[str]) -> str:
    """Why the processes failed, in one sentence: their own if one met a KardError, else the first error printed."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "checkpoints" / FAILED).read_text("utf-8")
    errors = [found[1] for line in lines if (found := ERROR.match(line.strip()))]
    if any("waiting for clients" in error for error in errors):
        return (
            f"not all of the {begun['machines']} machines came to compute.address = {begun['address']} within "
            f"{begun['wait']} seconds: run kard join 1, kard join 2 and so on there, with the same store"
        )
    killed = next((line.strip() for line in lines if re.search(r"exitcode *: -\d+", line)), "no error was printed")
    return f"a process that trained {folder.name} failed ({errors[0] if errors else killed}): the lines above say more"


# ---------------------------------------------------------------------------------------------------------------------
# In the processes


def encode(value: Any) -> dict[str, Any]:
    """What JSON does not know, for `json.dumps`."""
    if isinstance(value, groups.Group):
        return {"__settings__": type(value).__name__, "values": value.model_dump(mode="json")}
    return {"__record__": f"{type(value).__module__}:{type(value).__name__}", "values": asdict(value)}


def decode(value: dict[str, Any]) -> Any:
    """The inverse of `encode`, for `json.loads`."""
    if "__settings__" in value:
        return getattr(groups, value["__settings__"])(**value["values"])
    if "__record__" in value:
        module, _, name = value["__record__"].partition(":")
        return getattr(importlib.import_module(module), name)(**value["values"])
    return value


def work(folder: Path) -> int:
    """One process: meet the others and build. Exit code 2 after an error said in one sentence, which is kept."""
    import torch
    from torch import distributed
    from transformers.utils import logging

    logging.disable_progress_bar()
    job = json.loads((folder / "checkpoints" / JOB).read_text("utf-8"), object_hook=decode)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"  # FSDP's checkpoints are gathered on the CPU
    distributed.init_process_group(backend, timeout=timedelta(seconds=max(job["wait"], 600)))
    if distributed.get_rank() == 0:
        announce_device()
    try:
        Kind("", builder=job["builder"]).build(job["work"], folder, **({"sharded": True} if job["sharded"] else {}))
    except KardError as error:
        (folder / "checkpoints" / FAILED).write_text(str(error), "utf-8")
        return 2
    distributed.destroy_process_group()
    return 0


def end_with_parent() -> None:
    """End this process when its standard input does, which whoever started it holds open for as long as it lives.

    A killed notebook would else leave torchrun training on, in the folder that the next run goes on in. Who starts
    torchrun by hand holds no pipe.
    """
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it breaks the interpreter's end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: Sequence[str]) -> int:
    """`agent ARGUMENTS` is torchrun; `work FOLDER` is one of the processes that it starts."""
    end_with_parent()
    if arguments[0] == "work":
        return work(Path(arguments[1]))
    from torch.distributed import run

    run.main(arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
