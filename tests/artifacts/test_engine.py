"""Slots of one machine, scripts that start a sweep, and a real Ray cluster of two nodes that share no folder."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import psutil
import pytest

from kardlib import REPOSITORY
from kardlib.__main__ import main
from kardlib.artifacts.device import SLOTS
from kardlib.artifacts.engine import EngineError, check_ray, connect_ray, make_all, run_jobs, take_slots
from kardlib.artifacts.store import MANIFEST, Kind, Store, artifact_name
from kardlib.errors import StoreError
from kardlib.report.claims import judge, read_claims, read_rows
from kardlib.reproduce import reproduce
from kardlib.settings import StudentSettings
from tests.jobs import die, how_torch_multiplies, wait_and_write, write_elsewhere, write_folder


def test_jobs_share_the_slots_and_who_wants_the_machine_alone_waits_for_all(tmp_path):
    (tmp_path / ".locks").mkdir()
    met, running, most = threading.Barrier(SLOTS), [], []

    def meet(count: int) -> None:
        with take_slots(tmp_path, count):
            met.wait(30)  # only if all hold their slots side by side

    def work(count: int) -> None:
        with take_slots(tmp_path, count):
            running.append(count)
            most.append(list(running))
            time.sleep(0.1)
            running.remove(count)

    run_side_by_side(meet, [1] * SLOTS)
    assert not met.broken
    run_side_by_side(work, [1, SLOTS, 1, 1, SLOTS, 1])
    assert len(most) == 6 and not running
    assert all(at_once == [SLOTS] or SLOTS not in at_once for at_once in most)


def run_side_by_side(work: Callable[[int], None], counts: list[int]) -> None:
    threads = [threading.Thread(target=work, args=(count,)) for count in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_what_one_process_alone_can_make_is_made_as_by_a_worker_and_changes_nothing_after_it(tmp_path, monkeypatch):
    before = how_torch_multiplies()
    monkeypatch.setenv("OMP_NUM_THREADS", str(before[0] + 1))
    kind = Kind("torch", builder="tests.jobs:write_how_torch_multiplies")
    made = [make_all(Store(tmp_path / str(here)), kind, {0: ({}, ())}, here=here)[0] for here in (True, False)]
    alone, worker = (json.loads((folder / "torch.json").read_text()) for folder in made)
    assert alone == worker and alone[0] == before[0] + 1
    assert how_torch_multiplies() == before  # else a training that goes on here would end with other bits


def test_what_a_notebook_has_dropped_is_freed_before_its_workers_begin(tmp_path):
    gc.disable()  # as good as disabled in a run: `open_experiment`
    try:
        dropped = StudentModel()
        dropped.trainer = dropped  # a cycle, as of a model and its trainer
        alive = weakref.ref(dropped)
        del dropped
        make_all(Store(tmp_path), Kind("torch", builder="tests.jobs:write_how_torch_multiplies"), {0: ({}, ())})
        assert alive() is None
    finally:
        gc.enable()


class StudentModel:
    """Something that can be referred to weakly."""


SCRIPT = """
import sys
from kardlib.artifacts.engine import run_jobs
from kardlib.artifacts.store import Store
from tests.jobs import write_folder

def sweep():
    print(len(list(run_jobs(write_folder, Store(sys.argv[1]), [(0,), (1,)], 2))), "made")

{guard}
    sweep()
"""


GUARD = 'if __name__ == "__main__":'


@pytest.mark.parametrize("guard", [GUARD, "if True:"])
@pytest.mark.usefixtures("without_ray")
def test_a_script_that_starts_a_sweep_without_the_guard_is_told_so_in_one_sentence(guard, tmp_path):
    (tmp_path / "study.py").write_text(SCRIPT.format(guard=guard))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(tmp_path / "study.py"), str(tmp_path / "store")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "__name__" in guard:
        assert (run.returncode, run.stdout, run.stderr) == (0, "2 made\n", "")
        return
    assert run.returncode == 1 and run.stdout == "" and run.stderr.count("\n") == 1
    assert "study.py, line 11, makes artifacts in worker processes, which run the script again: put" in run.stderr
    assert run.stderr.endswith('put its lines under `if __name__ == "__main__":`\n')


@pytest.mark.usefixtures("without_ray")
def test_a_worker_that_is_killed_is_one_sentence(tmp_path):
    with pytest.raises(EngineError, match=r"^a worker was killed, perhaps because the memory did not suffice: close"):
        list(run_jobs(die, Store(tmp_path), [(str(tmp_path / "log"),)], 1))


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_process_that_is_killed_while_its_workers_work(sign, tmp_path):
    """Neither workers nor their server nor the tracker of resources, nor the folder of the server's socket."""
    (tmp_path / "study.py").write_text(SCRIPT.format(guard=GUARD))
    with TemporaryDirectory() as temporary:  # tmp_path is too long for a socket where tests run side by side
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": temporary}
        killed = psutil.Popen([sys.executable, str(tmp_path / "study.py"), str(tmp_path / "store")], env=environment)
        while not list(tmp_path.glob("store/folder-*.partial")):
            assert killed.poll() is None
            time.sleep(0.02)
        left = killed.children(recursive=True)
        assert len(left) >= 3
        killed.send_signal(sign)
        killed.wait()
        assert psutil.wait_procs(left, timeout=120)[1] == []
        assert not list(Path(temporary).glob("pymp-*"))


INTERRUPTED = """
import signal
import sys
from kardlib.artifacts.engine import run_jobs
from kardlib.artifacts.store import Store
from tests.jobs import wait_and_write

def sweep(*seconds):
    try:
        for folder in run_jobs(wait_and_write, Store(sys.argv[1]), [(s,) for s in seconds], 2):
            print("made", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told the tests to ignore it
    sweep(0.1, *range(600, 610))
    sweep(0.2, 0.3)
"""


@pytest.mark.usefixtures("without_ray")
def test_an_interrupt_ends_what_runs_starts_nothing_else_and_keeps_what_is_done(tmp_path):
    """As Jupyter sends it: to the kernel and all that it started, which then takes the next cell."""
    (tmp_path / "study.py").write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(tmp_path / "study.py"), str(tmp_path / "store")]
    pipe = subprocess.PIPE
    run = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert run.stdout and run.stdout.readline() == "made\n"
    while len(list(tmp_path.glob("store/waited-*.partial"))) < 2:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out.splitlines()) == (0, ["interrupted", "made", "made"]), err
    assert len(list(tmp_path.glob("store/waited-*/done"))) == 3


@pytest.mark.usefixtures("without_ray")
def test_a_job_that_fails_is_told_before_all_others_are_done(tmp_path):
    jobs = [(0, None, "no room"), *((number,) for number in range(1, 40))]
    with pytest.raises(StoreError, match=r"^no room$"):
        list(run_jobs(write_folder, Store(tmp_path), jobs, 2))
    assert len(list(tmp_path.glob("folder-*"))) < 10


@pytest.mark.usefixtures("without_ray")
def test_a_job_that_fails_beside_a_long_one_keeps_others_from_being_begun(tmp_path):
    fail_beside_a_long_job(tmp_path)


def fail_beside_a_long_job(folder: Path) -> None:
    jobs = [(3,), (-1,), *((1 + number / 1000,) for number in range(40))]
    with pytest.raises(ValueError, match="sleep length must be non-negative"):
        list(run_jobs(wait_and_write, Store(folder), jobs, 2))
    assert len(list(folder.glob("waited-*/done"))) < 10


class Machines:
    """The cluster's address, the working copy of each node by name, and a way to kill the second node."""

    def __init__(self, folder: Path):
        from ray.cluster_utils import Cluster

        self.copies = {name: folder / name for name in ("head", "other")}
        self.cluster = Cluster()
        self.cluster.add_node(num_cpus=1, include_dashboard=False)
        self.other = self.cluster.add_node(num_cpus=1, env_vars={"KARD_CACHE": str(self.copies["other"])})
        self.address = self.cluster.address

    def kill_other(self) -> None:
        self.cluster.remove_node(self.other, allow_graceful=False)


@pytest.fixture(scope="module")
def machines(tmp_path_factory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_raylet_death_check_interval_milliseconds", "20")  # else a job may end before its machine has
        patch.setenv("PYTHONPATH", str(REPOSITORY))  # where a machine's workers find this package and these tests
        patch.setenv("KARD_CACHE", str(folder / "head"))
        machines = Machines(folder)
        yield machines
        connect_ray(machines.address).shutdown()
        machines.cluster.shutdown()


@pytest.fixture
def on_ray(machines, monkeypatch) -> Machines:
    monkeypatch.setenv("KARD_ENGINE", "ray")
    monkeypatch.setenv("KARD_RAY_ADDRESS", machines.address)
    monkeypatch.setenv("KARD_CACHE", str(machines.copies["head"]))
    return machines


def test_without_an_address_ray_is_started_here(monkeypatch, tmp_path):
    monkeypatch.setenv("KARD_ENGINE", "ray")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # where Ray's workers find these tests
    monkeypatch.delenv("KARD_RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = set(run_jobs(write_folder, Store(tmp_path), [(n,) for n in range(3)], 2))
    assert made == {tmp_path / artifact_name(Kind("folder"), {"number": n}) for n in range(3)}
    assert {(folder / "made_in").read_text() for folder in made} == {str(tmp_path)}
    ray = connect_ray("")
    assert ray.cluster_resources()["CPU"] == 2
    ray.shutdown()


def test_machines_with_a_url_fetch_what_a_job_needs_into_their_own_copies(on_ray, tmp_path):
    store = Store(f"file://{tmp_path}/shared")
    model = store.make(Kind("model"), {}, lambda folder: (folder / "weights").write_text("123") and None)
    settings = StudentSettings(model=str(model / "weights"))
    made = list(run_jobs(write_folder, store, [(n, settings) for n in (10, 11)], 2))
    assert {folder.parent for folder in made} == {on_ray.copies["head"]} == {store.root}
    assert {(folder / "made_in").read_text() for folder in made} == {str(copy) for copy in on_ray.copies.values()}
    assert [(folder / "model").read_text() for folder in made] == ["123", "123"]
    assert (on_ray.copies["other"] / model.name / "weights").read_text() == "123"


def test_what_a_job_raises_is_raised_here(on_ray, tmp_path):
    with pytest.raises(StoreError, match=r"^no room$") as error:
        list(run_jobs(write_folder, Store(tmp_path), [(20, None, "no room"), (21,)], 2))
    assert type(error.value) is StoreError


def test_a_job_that_fails_there_beside_a_long_one_keeps_others_from_being_begun(on_ray, tmp_path):
    fail_beside_a_long_job(tmp_path)


def test_machines_that_share_nothing_are_told_what_to_share(on_ray, tmp_path):
    with pytest.raises(EngineError, match=r"^another machine made folder-.*, but it is not in .*/here: set KARD_STORE"):
        list(run_jobs(write_elsewhere, Store(tmp_path / "here"), [(str(tmp_path / "there"),)], 1))


def test_a_job_that_kills_every_machine_is_given_up(on_ray, tmp_path, monkeypatch):
    monkeypatch.setattr("kardlib.artifacts.engine.RETRIES", 1)
    with pytest.raises(EngineError, match=r"^Ray gave a job up whose machine died 2 times \(.*\): what is finished"):
        list(run_jobs(die, Store(tmp_path), [(str(tmp_path / "log"),)], 1))
    assert (tmp_path / "log").read_text().count("tried") == 2


def sweep(root: Path, **options) -> tuple[pd.DataFrame, str]:
    """Scorecard and data of Tables 1 and 2 at the smoke scale with two seeds, by `kard reproduce`."""
    (root / "notebooks").mkdir(parents=True)
    shutil.copy(REPOSITORY / "notebooks" / "04_distillation.ipynb", root / "notebooks")
    smaller = {"seeds": [0, 1], "world.train": 40, "world.test": 10}
    figures = reproduce("smoke", overrides=smaller, root=root, **options).parent / "figures"
    return judge(read_claims(), read_rows([figures])).drop(columns="file"), (figures / "04_main.csv").read_text()


def read_files(store: Path) -> dict[str, dict]:
    """Artifact -> sizes and hashes of its files."""
    manifests = {path.parent.name: json.loads(path.read_text()) for path in store.glob(f"*/{MANIFEST}")}
    return {name: manifest["files"] for name, manifest in manifests.items() if manifest["kind"] != "index"}


def test_a_sweep_survives_the_death_of_a_machine(on_ray, tmp_path, monkeypatch):
    """The second machine dies while it trains a student; the scorecard is that of one machine alone, bit by bit."""
    other, shared = on_ray.copies["other"], tmp_path / "shared"
    seen, swept = list[Path](), threading.Event()

    def kill_while_it_trains() -> None:
        while not seen and not swept.is_set():
            time.sleep(0.01)
            seen.extend(path for path in other.glob("student-*.partial") if (path / MANIFEST).exists())
        on_ray.kill_other()

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as a job on Ray has
    killer = threading.Thread(target=kill_while_it_trains)
    monkeypatch.setenv("KARD_STORE", f"file://{shared}")
    monkeypatch.delenv("KARD_ENGINE")
    monkeypatch.delenv("KARD_RAY_ADDRESS")
    killer.start()
    try:
        on_two = sweep(tmp_path / "two", engine="ray", address=on_ray.address)
    finally:
        swept.set()
        killer.join()
    assert seen and seen[0].is_dir(), "the machine had finished before it died"
    assert (shared / seen[0].stem / MANIFEST).exists(), "nobody did its job instead"

    made_by_workers = shutil.ignore_patterns("student-*", "reranker-*", "predictions-*")
    shutil.copytree(shared, tmp_path / "store", ignore=made_by_workers)  # searches need not be done twice
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    on_one = sweep(tmp_path / "one")
    assert read_files(shared) == read_files(tmp_path / "store") and len(read_files(shared)) > 30
    assert on_two[1] == on_one[1]
    pd.testing.assert_frame_equal(on_two[0], on_one[0])
    assert on_one[0].verdict.isin(["reproduced", "not reproduced", "undecided"]).any()


@pytest.fixture
def without_ray(monkeypatch) -> None:
    monkeypatch.delenv("KARD_ENGINE", raising=False)
    monkeypatch.delenv("KARD_RAY_ADDRESS", raising=False)


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    "options, said",
    [
        ("--engine ray --address 127.0.0.1:9", "no Ray head answers at 127.0.0.1:9 ([Errno 111] Connection refused)"),
        ("--engine ray --address no-such-host.invalid:6379", "no Ray head answers at no-such-host.invalid:6379 ("),
        ("--engine ray --address 127.0.0.1:99999", "no Ray head answers at 127.0.0.1:99999 ("),
        ("--engine ray --address ray://head:10001", "is no address: write HOST:PORT as `ray start --head` prints it"),
        ("--engine ray --address head", "'head' is no address: write HOST:PORT"),
        ("--address 127.0.0.1:6379", "an address is the Ray cluster's: add --engine ray"),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_reached_is_one_sentence(options, said, capsys):
    assert main(["reproduce", *options.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kard: ") and said in err and err.count("\n") == 1


def test_a_cluster_that_refuses_names_its_token(monkeypatch):
    """What a client without the head's token hears from Ray is that it failed to connect."""
    import ray

    def refuse(*_, **__):
        raise ConnectionError("Failed to connect to GCS")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(EngineError, match=r"^Ray at auto cannot be used: Failed .*; if .* RAY_AUTH_MODE=token"):
        connect_ray("auto")


def test_an_engine_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("KARD_ENGINE", "dask")
    with pytest.raises(EngineError, match="there is no engine 'dask': set KARD_ENGINE to local or ray"):
        list(run_jobs(write_folder, Store(), [], 1))


@pytest.mark.parametrize("address", ["", "127.0.0.1:6379"])
def test_without_ray_it_is_named(address, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(EngineError, match=r"Ray is not installed: run pip install 'kardlib\[ray\]'"):
        check_ray(address)
