"""Training by several processes, on the GPUs of one machine: torchrun, started from wherever training is.

    train(STUDENT, (examples, settings, seed), folder, ComputeSettings(processes=4))

writes what is to be trained into `folder/checkpoints`, starts torchrun as a process of its own (so it works in a
notebook, whose kernel must not touch a GPU first), prints what the processes print and returns when `folder` holds the
model. Students and rerankers are trained so; RAG's retriever (`rag.py`), ReAugKD, ranking and writing use one process.

Several machines that see the folder under one path train one model when torchrun is started by hand. Begin the training
with `compute.processes` set, so that its job is written, interrupt it, and run on every machine N = 0, 1, ...

    python -m torch.distributed.run --nnodes 2 --node-rank N --nproc-per-node 8 --master-addr FIRST \
        --master-port 29400 -m kardlib.artifacts.launch artifacts/student-....partial

Once that ends, what began the training goes on from its last checkpoint and publishes the model. torchrun trusts
whoever reaches its address: keep that inside your network.

Tests run all of this on CPUs (gloo). Nothing here has run on more than one GPU (NCCL).
"""

import contextlib
import importlib
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kardlib import python_path
from kardlib.artifacts.device import announce_device
from kardlib.artifacts.store import Kind
from kardlib.errors import KardError
from kardlib.settings import ComputeSettings, Group

JOB = "job.json"  # in an artifact's checkpoints: what is to be trained
FAILED = "failed.txt"  # beside it: the sentence of a process that met a KardError
ERROR = re.compile(r"(?:\[rank\d+\]: ?)?((?:\w+\.)*\w*(?:Error|Exception): .+)")  # the last line of a traceback


class LaunchError(KardError, RuntimeError):
    """Processes that should train together cannot be started or have failed; the message is one sentence."""


def train(kind: Kind, work: tuple[Any, ...], folder: Path, compute: ComputeSettings) -> None:
    """Train here, or in as many processes as `compute` says; `work` is for the kind's builder. Raises LaunchError."""
    import torch

    batch = next(part.batch for part in work if hasattr(part, "batch"))
    processes = plan_processes(compute, batch, 0 if compute == ComputeSettings() else torch.cuda.device_count())
    if processes == 1:
        announce_device()
        kind.build(work, folder)
        return
    print(f"{folder.name}: {processes} processes", flush=True)
    write_job(kind, work, folder)
    run_torchrun(folder, processes)


def plan_processes(compute: ComputeSettings, batch: int, gpus: int) -> int:
    """How many processes: what `compute` says, else as many `gpus` as divide the batch evenly. Raises LaunchError."""
    fitting = [n for n in range(1, batch + 1) if batch % n == 0]
    processes = compute.processes or max(n for n in fitting if n <= max(gpus, 1))
    if gpus and processes > gpus:
        raise LaunchError(
            f"compute.processes = {processes}, but this machine has {gpus} GPU{'s' * (gpus > 1)}: lower it"
        )
    if processes not in fitting:
        raise LaunchError(
            f"a batch of {batch} cannot be divided evenly among {processes} processes: set compute.processes to "
            f"{' or '.join(map(str, fitting))}, or change the batch"
        )
    return processes


def write_job(kind: Kind, work: tuple[Any, ...], folder: Path) -> None:
    """Write what `build_job` reads in every process."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / FAILED).unlink(missing_ok=True)
    (checkpoints / JOB).write_text(json.dumps({"builder": kind.builder, "work": work}, default=to_json), "utf-8")


def run_torchrun(folder: Path, processes: int) -> None:
    """Let torchrun start the processes of the folder's job, and print what they print. Raises LaunchError."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", "kardlib.artifacts.launch", str(folder.resolve()), "--held"]
    environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))} | os.environ
    environment["PYTHONPATH"] = python_path()
    last: deque[str] = deque(maxlen=2000)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        assert process.stdout
        for line in process.stdout:  # whatever happens here, Popen closes the standard input, which ends the processes
            print(line, end="", flush=True)
            last.append(line)
    if process.returncode:
        raise LaunchError(explain(folder, list(last)))


def explain(folder: Path, lines: Sequence[str]) -> str:
    """Why the processes failed, in one sentence: their own if one met a KardError, else the first error printed."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "checkpoints" / FAILED).read_text("utf-8")
    errors = [found[1] for line in lines if (found := ERROR.match(line.strip()))]
    killed = next((line.strip() for line in lines if re.search(r"exitcode *: -\d+", line)), "no error was printed")
    return f"a process that trained {folder.name} failed ({errors[0] if errors else killed}): the lines above say more"


# In the processes


def to_json(value: Any) -> dict[str, Any]:
    """What JSON does not know, for `json.dumps`: groups of settings and records (dataclasses)."""
    values = value.model_dump(mode="json") if isinstance(value, Group) else asdict(value)
    return {"__class__": f"{type(value).__module__}:{type(value).__name__}", "values": values}


def from_json(value: dict[str, Any]) -> Any:
    """The inverse of `to_json`, for `json.loads`. Raises LaunchError for a class of another package."""
    if "__class__" not in value:
        return value
    module, _, name = value["__class__"].partition(":")
    if module.split(".")[0] != "kardlib":
        raise LaunchError(f"{value['__class__']} is no class of kardlib: delete the job and begin the training again")
    return getattr(importlib.import_module(module), name)(**value["values"])


def build_job(folder: Path) -> int:
    """One process: meet the others and build. Exit code 2 after an error said in one sentence, which is kept."""
    import torch
    from torch import distributed
    from transformers.utils import logging

    logging.disable_progress_bar()
    job = json.loads((folder / "checkpoints" / JOB).read_text("utf-8"), object_hook=from_json)
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if gpu else "gloo")
    if distributed.get_rank() == 0:
        announce_device()
    try:
        Kind("", builder=job["builder"]).build(job["work"], folder)
    except KardError as error:
        (folder / "checkpoints" / FAILED).write_text(str(error), "utf-8")
        return 2
    distributed.destroy_process_group()
    return 0


def end_with_input() -> None:
    """End this process when its standard input does, which the training's own process holds open as long as it lives.

    A killed notebook would else leave its processes training on, in the folder that the next run goes on in.
    """

    def watch() -> None:
        os.read(0, 1)  # not sys.stdin: a thread that waits in it breaks the interpreter's end
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":  # `FOLDER`, as torchrun starts it; with `--held` by a process that may be killed
    if "--held" in sys.argv:
        end_with_input()
    sys.exit(build_job(Path(sys.argv[1])))
