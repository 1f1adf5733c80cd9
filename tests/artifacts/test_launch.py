"""Several processes, machines and a killed notebook: whoever trains, losses and weights are those of one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
import torch
from jupyter_client.manager import KernelManager
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from kardlib.__main__ import main
from kardlib.artifacts import launch
from kardlib.artifacts.launch import LaunchError, plan_processes
from kardlib.artifacts.store import REPOSITORY, Kind, Store, artifact_name, write_json
from kardlib.data.files import DataError
from kardlib.kard import reranker, student
from kardlib.models.nano import build_tokenizer
from kardlib.settings import ComputeSettings, RerankerSettings, SettingsError, StudentSettings, preset
from tests.kard.test_reranker import task

EXAMPLES = [  # 41 = 5 batches of 8 and one example, which leaves some processes without any
    (f"Question: Which remedy will help? A. Bal{i % 7} B. Denfir" + " rash" * (i % 9), "B" + " it is so" * (i % 5))
    for i in range(41)
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> StudentSettings:
    """A student of 20,000 weights without dropout; a checkpoint and a log at every hundredth of 400 steps."""
    folder, tokenizer = tmp_path_factory.mktemp("student"), build_tokenizer()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_ff=32, d_kv=8, num_heads=2, num_layers=1, dropout_rate=0.0,
        decoder_start_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return StudentSettings(
        model=str(folder), lr=1e-3, batch=8, steps=400, max_source_tokens=64, max_new_tokens=24, epochs=1
    )


@contextmanager
def stopped(at: int):
    """Training that is interrupted after so many steps."""

    class Stop(student.PlainProgress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == at:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(student, "PlainProgress", Stop)
        yield


def result(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    return [row["loss"] for row in json.loads((folder / "losses.json").read_text())], load_file(
        folder / "model.safetensors"
    )


def assert_alike(folder: Path, whole: Path) -> None:
    (losses, weights), (expected, same) = result(folder), result(whole)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert weights.keys() == same.keys()
    assert max(float((weights[k] - same[k]).abs().max()) for k in same) < 1e-4


def wait_until(is_so: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not: in a container there may be nobody to take it away."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def test_two_machines_a_killed_notebook_and_one_process_train_as_one_process_does(settings, tmp_path):
    """Steps 1 to 100 in one process, on to 200 by two torchrun agents that a notebook and `kard join` start, on to the
    end in one process again: losses and weights are those of a run that one process made in one go."""
    work = (EXAMPLES, settings, 0)
    whole = tmp_path / "whole"
    launch.train(Kind("student"), work, whole, ComputeSettings())

    def build(folder: Path) -> None:
        launch.train(Kind("student"), work, folder, ComputeSettings())

    with stopped(at=103):
        Store(tmp_path).make(Kind("student"), {}, build)
    folder = tmp_path / f"{artifact_name(Kind('student'), {})}.partial"

    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "KARD_STORE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    (tmp_path / "work.json").write_text(json.dumps(work, default=launch.encode))
    compute = ComputeSettings(machines=2, address=free_address(), wait=300)
    cell = f"""
import json
from pathlib import Path
from kardlib import launch
from kardlib.artifacts.store import Kind, Store
work = json.loads(Path({str(tmp_path / "work.json")!r}).read_text(), object_hook=launch.decode)
compute = launch.ComputeSettings(**{compute.model_dump()!r})
Store().make(Kind("student"), {{}}, lambda folder: launch.train(Kind("student"), tuple(work), folder, compute))
"""
    other = subprocess.Popen([sys.executable, "-m", "kardlib", "join", "1"], env=environment, cwd=REPOSITORY)
    notebook = KernelManager()
    notebook.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    notebook.start_kernel(env=environment)
    try:
        client = notebook.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=60)
        client.execute(cell)
        wait_until((folder / "checkpoints" / "checkpoint-200" / "trainer_state.json").exists)
        started = psutil.Process(notebook.provisioner.pid).children(recursive=True)
        assert len(started) >= 2  # the agent and its process
        notebook.signal_kernel(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, started)))
        wait_until(lambda: not any(map(is_alive, psutil.Process(other.pid).children())))
        assert other.poll() is None  # it waits for the next training
        client.stop_channels()
    finally:
        notebook.shutdown_kernel(now=True)
        other.terminate()
        other.wait()
    assert not (folder / "model.safetensors").exists()
    assert_alike(Store(tmp_path).make(Kind("student"), {}, build), whole)


def enter(rank: int, processes: int, address: str, folder: Path, stop: int | None) -> None:
    """One of the processes that torchrun would start: here forked from one that has imported torch."""
    host, port = address.split(":")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(processes)}
    if json.loads((folder / "checkpoints" / launch.JOB).read_text())["sharded"]:
        divide_on_cpus()
    if stop:
        with stopped(at=stop):
            launch.work(folder)
    else:
        sys.exit(launch.work(folder))


def divide_on_cpus() -> None:
    """accelerate takes no FSDP on CPUs, although torch does it there: call them accelerators of another kind."""
    from accelerate import state

    begin = state.AcceleratorState.__init__

    def begin_divided(self, *arguments, **others):
        if others.get("fsdp_plugin"):
            state.PartialState._shared_state["distributed_type"] = state.DistributedType.MULTI_XPU
        begin(self, *arguments, **others)

    state.AcceleratorState.__init__ = begin_divided


def run_processes(processes: int, kind: str, work: tuple, folder: Path, sharded: bool = False, stop: int | None = None):
    """As `launch.train_together` without torchrun, whose start takes seconds. Returns exit codes."""
    launch.write_job(kind, work, folder, ComputeSettings(strategy="fsdp" if sharded else "ddp"))
    context, address = get_context("forkserver"), free_address()
    context.set_forkserver_preload(["kardlib.kard.reranker", "kardlib.kard.student"])
    started = [context.Process(target=enter, args=(i, processes, address, folder, stop)) for i in range(processes)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    return [process.exitcode for process in started]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> Path:
    """200 steps in one process in one go."""
    folder = tmp_path_factory.mktemp("whole")
    launch.train(Kind("student"), (EXAMPLES, settings.model_copy(update={"steps": 200}), 0), folder, ComputeSettings())
    return folder


@pytest.mark.parametrize("sharded", [False, True])
def test_checkpoints_of_one_process_are_gone_on_from_by_two(settings, whole, tmp_path, sharded):
    work, folder = (EXAMPLES, settings.model_copy(update={"steps": 200}), 0), tmp_path / "parts"
    assert run_processes(1, "student", work, folder, sharded, stop=103) == [0]
    assert (folder / "checkpoints" / "checkpoint-100").is_dir() and not (folder / "model.safetensors").exists()
    if sharded:
        with pytest.raises(DataError, match=r"parts was begun with compute\.strategy = fsdp: go on with it"):
            launch.train(Kind("student"), work, folder, ComputeSettings())
    assert run_processes(2, "student", work, folder, sharded) == [0, 0]
    assert_alike(folder, whole)


def test_a_reranker_learns_the_same_from_parts(tmp_path):
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    settings = RerankerSettings(model=str(tmp_path / "encoder"), dim=32, sampled=2, batch=6, epochs=2, lr=1e-3)
    questions, passages, candidates = task(7)
    candidates = candidates[:13]  # 2 batches of 6 and one rationale, which leaves some processes without any
    work = (settings, questions, passages, candidates, 0)
    launch.train(Kind("reranker"), work, tmp_path / "whole", ComputeSettings())
    assert run_processes(3, "reranker", work, tmp_path / "parts") == [0, 0, 0]
    losses, expected = (json.loads((tmp_path / name / reranker.LOSSES).read_text()) for name in ("parts", "whole"))
    assert losses == pytest.approx(expected, rel=1e-4)
    for file in ("model.safetensors", reranker.LINEAR):
        weights, same = (load_file(tmp_path / name / file) for name in ("parts", "whole"))
        assert max(float((weights[k] - same[k]).abs().max()) for k in same) < 1e-3


def test_what_a_process_says_is_the_error(settings, tmp_path):
    work = (EXAMPLES, settings.model_copy(update={"model": str(tmp_path)}), 0)
    assert run_processes(1, "student", work, tmp_path) == [2]
    said = launch.explain(tmp_path, ComputeSettings(processes=1).model_dump(), ["RuntimeError: peer closed\n"])
    assert f"no student could be loaded from '{tmp_path}'" in said and "\n" not in said


def test_the_first_error_of_a_process_is_named(tmp_path):
    lines = ["  File x\n", "[rank1]: ValueError: no room on the table\n", "[rank0]: RuntimeError: peer closed\n"]
    said = launch.explain(tmp_path / "student-1.partial", {}, lines)
    assert "student-1.partial failed (ValueError: no room on the table)" in said
    assert "exitcode : -9" in launch.explain(tmp_path, {}, ["  exitcode : -9 (pid: 7)\n"])


def test_no_other_machine_comes(settings, tmp_path, capfd):
    compute = ComputeSettings(machines=2, address=free_address(), wait=1)
    with pytest.raises(LaunchError, match=f"not all of the 2 machines came to compute.address = {compute.address}"):
        launch.train(Kind("student"), (EXAMPLES, settings, 0), tmp_path / "student", compute)
    assert not (tmp_path / launch.BOARD).exists()


@pytest.mark.parametrize("address", ["192.0.2.1:29400", "no-such-host.invalid:29400"])
def test_the_first_machine_is_not_at_the_address(settings, tmp_path, address):
    compute = ComputeSettings(machines=2, address=address)
    with pytest.raises(LaunchError, match=f"cannot meet at compute.address = {address} .*: give a name of the first"):
        launch.train(Kind("student"), (EXAMPLES, settings, 0), tmp_path / "student", compute)


def test_a_machine_that_joins_says_what_keeps_it_from_it(tmp_path, monkeypatch):
    begun = ComputeSettings(processes=2, machines=2, address=free_address(), wait=1).model_dump()
    write_json(tmp_path / launch.BOARD, {"id": "1", "folder": "student-1.partial"} | begun)
    with pytest.raises(LaunchError, match=f"did not answer at compute.address = {begun['address']} within 1 seconds"):
        launch.join(tmp_path, 1)
    monkeypatch.setattr(launch, "count_gpus", lambda: 1)
    with pytest.raises(LaunchError, match=r"compute\.processes = 2, but this machine has 1 GPU: lower it"):
        launch.join(tmp_path, 1)


def test_the_first_machine_joins_nobody(capsys):
    assert main(["join", "0"]) == 2
    assert capsys.readouterr().err.startswith("kard: the first machine joins nobody: there, run what is to be made")


@pytest.mark.parametrize(
    ("compute", "batch", "gpus", "processes"),
    [
        (ComputeSettings(), 7, 0, 1),
        (ComputeSettings(processes=None), 32, 0, 1),
        (ComputeSettings(processes=None), 32, 8, 8),
        (ComputeSettings(processes=None), 32, 6, 4),
        (ComputeSettings(processes=None, machines=4, address="a:1"), 32, 16, 8),
        (ComputeSettings(processes=2), 32, 0, 2),
        (ComputeSettings(strategy="fsdp"), 32, 1, 1),
    ],
)
def test_processes_divide_the_batch(compute, batch, gpus, processes):
    assert plan_processes(compute, batch, gpus) == processes


@pytest.mark.parametrize(
    ("compute", "gpus", "said"),
    [
        ({"processes": 4}, 2, "compute.processes = 4, but this machine has 2 GPUs: lower it"),
        (
            {"processes": 3},
            0,
            "a batch of 32 cannot be divided evenly among 3 processes: set compute.processes to 1 or 2",
        ),
        (
            {"processes": 1, "machines": 3, "address": "a:1"},
            0,
            "among 1 process on each of 3 machines: lower compute.machines",
        ),
        ({"strategy": "fsdp"}, 0, "compute.strategy = fsdp divides a model among GPUs, and this machine has none"),
    ],
)
def test_what_cannot_be_divided_is_one_sentence(compute, gpus, said):
    with pytest.raises(LaunchError) as error:
        plan_processes(ComputeSettings(**compute), 32, gpus)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compute.machines": 2}, "compute.machines = 2 machines need a place to meet: set compute.address"),
        ({"compute.address": "here"}, "compute.address = here is no host:port"),
        ({"compute.address": "here:123456"}, "compute.address = here:123456 is no host:port"),
        ({"compute.processes": 0}, "compute.processes"),
        ({"compute.strategy": "deepspeed"}, "compute.strategy"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(changes, said):
    with pytest.raises(SettingsError) as error:
        preset().override(changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_jobs_survive_json():
    questions, passages, candidates = task(3)
    work = [RerankerSettings(), questions, passages, candidates, preset("smoke").dapt, StudentSettings(), 3, "x"]
    assert json.loads(json.dumps(work, default=launch.encode), object_hook=launch.decode) == work
