"""Several processes, two torchruns and a killed notebook: whoever trains, it comes out as in one process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import torch
from jupyter_client.manager import KernelManager
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from kardlib import REPOSITORY
from kardlib.artifacts import launch
from kardlib.artifacts.launch import LaunchError, plan_processes
from kardlib.artifacts.store import Kind, Store, artifact_name
from kardlib.data.records import read_losses
from kardlib.kard.pipeline import STUDENT
from kardlib.kard.rankings import RERANKER
from kardlib.models import training
from kardlib.models.encoders import LINEAR
from kardlib.models.nano import build_tokenizer
from kardlib.presets import preset
from kardlib.settings import ComputeSettings, RerankerSettings, SettingsError, StudentSettings
from tests.kard.test_reranker import task
from tests.ports import choose_port

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

    class Stop(training.PlainProgress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == at:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "PlainProgress", Stop)
        yield


def result(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    return [*read_losses(folder).values()], load_file(folder / "model.safetensors")


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
    return f"127.0.0.1:{choose_port()}"


SLOW = """
import os
if "RANK" in os.environ:  # in torchrun's processes alone
    import time
    from kardlib.models import training
    class Slow(training.PlainProgress):
        def on_step_end(self, args, state, control, **more):
            if state.global_step > int(os.environ["SLOW_AFTER"]):
                time.sleep(1)
    training.PlainProgress = Slow
"""


def slow_after(step: int, folder: Path) -> dict[str, str]:
    """An environment in which torchrun's processes take a second for each later step: none ends before it is killed."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOW)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}", "SLOW_AFTER": str(step)}


def torchrun(machine: int, address: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """What is run by hand on one of two machines, with one process on each."""
    host, port = address.split(":")
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(machine)]
    command += ["--nproc-per-node", "1", "--master-addr", host, "--master-port", port]
    command += ["-m", "kardlib.artifacts.launch", str(folder)]
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment)


def test_two_machines_a_killed_notebook_and_one_process_train_as_one_process_does(settings, tmp_path):
    """Steps 1 to 100 in one process, on to 200 by two torchruns, to 300 by two processes of a notebook, to the end in
    one process again: losses and weights are those of a run that one process made in one go."""
    work = (EXAMPLES, settings, 0)
    whole = tmp_path / "whole"
    launch.train(STUDENT, work, whole, ComputeSettings())

    def build(folder: Path) -> None:
        launch.train(STUDENT, work, folder, ComputeSettings())

    with stopped(at=103):
        Store(tmp_path).make(STUDENT, {}, build)
    folder = tmp_path / f"{artifact_name(STUDENT, {})}.partial"

    launch.write_job(STUDENT, work, folder)
    address = free_address()
    slow = slow_after(200, tmp_path / "slow")
    machines = [torchrun(machine, address, folder, slow) for machine in (0, 1)]
    wait_until((folder / "checkpoints" / "checkpoint-200" / "trainer_state.json").exists)
    for machine in machines:
        machine.terminate()
    assert all(machine.wait(60) for machine in machines)
    assert not (folder / "checkpoints" / "checkpoint-300").exists() and not (folder / "model.safetensors").exists()

    (tmp_path / "work.json").write_text(json.dumps(work, default=launch.to_json))
    cell = f"""
import json
from pathlib import Path
from kardlib.artifacts import launch
from kardlib.artifacts.store import Store
from kardlib.kard.pipeline import STUDENT
from kardlib.settings import ComputeSettings
work = json.loads(Path({str(tmp_path / "work.json")!r}).read_text(), object_hook=launch.from_json)
build = lambda folder: launch.train(STUDENT, tuple(work), folder, ComputeSettings(processes=2))
Store({str(tmp_path)!r}).make(STUDENT, {{}}, build)
"""
    sockets = TemporaryDirectory()  # their names may not have 108 letters
    notebook = KernelManager(transport="ipc", connection_file=f"{sockets.name}/kernel.json")
    notebook.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    notebook.start_kernel(env=slow_after(300, tmp_path / "slow") | {"OMP_NUM_THREADS": "1"})
    try:
        client = notebook.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=300)
        client.execute(cell)
        wait_until((folder / "checkpoints" / "checkpoint-300" / "trainer_state.json").exists)
        started = psutil.Process(notebook.provisioner.pid).children(recursive=True)
        assert len(started) >= 3  # torchrun and its processes
        notebook.signal_kernel(signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, started)))
        client.stop_channels()
    finally:
        notebook.shutdown_kernel(now=True)
        sockets.cleanup()
    assert not (folder / "model.safetensors").exists()
    assert_alike(Store(tmp_path).make(STUDENT, {}, build), whole)


def enter(rank: int, processes: int, address: str, folder: Path, stop: int | None) -> None:
    """One of the processes that torchrun would start: here forked from one that has imported torch."""
    host, port = address.split(":")
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port, "LOCAL_WORLD_SIZE": str(processes)}
    if stop:
        with stopped(at=stop):
            launch.build_job(folder)
    else:
        sys.exit(launch.build_job(folder))


def run_processes(processes: int, kind: Kind, work: tuple, folder: Path, stop: int | None = None):
    """As `launch.train` without torchrun, whose start takes seconds. Returns exit codes."""
    launch.write_job(kind, work, folder)
    context, address = get_context("forkserver"), free_address()
    context.set_forkserver_preload(["kardlib.kard.reranker", "kardlib.kard.answering"])
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
    launch.train(STUDENT, (EXAMPLES, settings.model_copy(update={"steps": 200}), 0), folder, ComputeSettings())
    return folder


def test_checkpoints_of_one_process_are_gone_on_from_by_two(settings, whole, tmp_path):
    work, folder = (EXAMPLES, settings.model_copy(update={"steps": 200}), 0), tmp_path / "parts"
    assert run_processes(1, STUDENT, work, folder, stop=103) == [0]
    assert (folder / "checkpoints" / "checkpoint-100").is_dir() and not (folder / "model.safetensors").exists()
    assert run_processes(2, STUDENT, work, folder) == [0, 0]
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
    launch.train(RERANKER, work, tmp_path / "whole", ComputeSettings())
    assert run_processes(3, RERANKER, work, tmp_path / "parts") == [0, 0, 0]
    losses, expected = (read_losses(tmp_path / name) for name in ("parts", "whole"))
    assert losses == pytest.approx(expected, rel=1e-4)
    for file in ("model.safetensors", LINEAR):
        weights, same = (load_file(tmp_path / name / file) for name in ("parts", "whole"))
        assert max(float((weights[k] - same[k]).abs().max()) for k in same) < 1e-3


def test_what_a_process_says_is_the_error(settings, tmp_path):
    work = (EXAMPLES, settings.model_copy(update={"model": str(tmp_path)}), 0)
    assert run_processes(1, STUDENT, work, tmp_path) == [2]
    said = launch.explain(tmp_path, ["RuntimeError: peer closed\n"])
    assert f"no student could be loaded from '{tmp_path}'" in said and "\n" not in said


def test_the_first_error_of_a_process_is_named(tmp_path):
    lines = ["  File x\n", "[rank1]: ValueError: no room on the table\n", "[rank0]: RuntimeError: peer closed\n"]
    said = launch.explain(tmp_path / "student-1.partial", lines)
    assert "student-1.partial failed (ValueError: no room on the table)" in said
    assert "exitcode : -9" in launch.explain(tmp_path, ["  exitcode : -9 (pid: 7)\n"])


@pytest.mark.parametrize(
    ("compute", "batch", "gpus", "processes"),
    [
        (ComputeSettings(), 7, 0, 1),
        (ComputeSettings(processes=None), 32, 0, 1),
        (ComputeSettings(processes=None), 32, 8, 8),
        (ComputeSettings(processes=None), 32, 6, 4),
        (ComputeSettings(processes=2), 32, 0, 2),
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
    ],
)
def test_what_cannot_be_divided_is_one_sentence(compute, gpus, said):
    with pytest.raises(LaunchError) as error:
        plan_processes(ComputeSettings(**compute), 32, gpus)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_settings_that_do_not_fit_are_one_sentence():
    with pytest.raises(SettingsError) as error:
        preset().override({"compute.processes": 0})
    assert "compute.processes" in str(error.value) and "\n" not in str(error.value)


def test_jobs_survive_json():
    questions, passages, candidates = task(3)
    work = [RerankerSettings(), questions, passages, candidates, preset("smoke").dapt, StudentSettings(), 3, "x"]
    assert json.loads(json.dumps(work, default=launch.to_json), object_hook=launch.from_json) == work


def test_a_job_names_no_other_packages_classes():
    with pytest.raises(LaunchError, match="no class of kardlib"):
        launch.from_json({"__class__": "subprocess:Popen", "values": {"args": "true"}})
