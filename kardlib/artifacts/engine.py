"""Who makes the missing artifacts of a sweep: processes of this machine, or the machines of a Ray cluster.

    KARD_ENGINE       "local" (default) or "ray"; `kard reproduce --engine` sets it for the notebooks' kernels
    KARD_RAY_ADDRESS  HOST:PORT as `ray start --head` prints it, "auto" for the cluster that this machine belongs to;
                      empty: Ray is started here and ends with the kernel

The machines of a cluster need this package in the same version and one store: a folder at the same path on each, or a
URL (`store.Store`).
"""

import ast
import contextlib
import functools
import gc
import importlib.util
import inspect
import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel

from kardlib.artifacts import launch
from kardlib.artifacts.device import SLOTS, prepare_torch, prepared_torch, release_memory
from kardlib.artifacts.store import Kind, Spec, Store, artifact_name
from kardlib.errors import KardError, first_line
from kardlib.settings import ComputeSettings

RETRIES = 3  # how often a job is given to another machine because its machine died
PATIENCE = 5  # seconds that a Ray head has to answer
TOKEN = (  # without one a head runs the code of whoever reaches it
    "if `ray start` said that the cluster has a token, set RAY_AUTH_MODE=token on every machine and give all of them "
    "the same ~/.ray/auth_token or RAY_AUTH_TOKEN"
)
MISSING = "Ray is not installed: run pip install 'kardlib[ray]'"

K = TypeVar("K")
Work = tuple[Any, ...]  # what an artifact's builder is given
Job = tuple[dict[str, Any], Work]  # after what names the artifact
Make = Callable[..., Path]  # make(store, *job): an artifact's folder


class EngineError(KardError, RuntimeError):
    """There is no such engine, Ray cannot be reached, or a job was given up."""


class ScriptError(SystemExit, EngineError):
    """A script starts a sweep where its workers would start it again. It ends with the sentence, not a traceback."""


def make_all(
    store: Store, kind: Kind, jobs: Mapping[K, Job], compute: ComputeSettings | None = None, here: bool = False
) -> dict[K, Path]:
    """The artifacts of jobs; `kind`'s builder makes the missing ones, `SLOTS` side by side or on Ray.

    Jobs of the same spec are one. `compute` may divide one model among processes: jobs then come one after another,
    each with the machine to itself. `here`: in this process alone, one after another, since others would lack something
    that was defined in a notebook. Raises EngineError, LaunchError, and what the builder raises.
    """
    names = {key: artifact_name(kind, spec) for key, (spec, _) in jobs.items()}
    different = dict(zip(names.values(), jobs.values(), strict=True))
    missing = [job for job in different.values() if not store.has(kind, job[0])]
    on_ray, at_once = choose_engine()[0] == "ray", SLOTS if compute in (None, ComputeSettings()) else 1
    if missing and not here:
        workers = min(at_once, len(missing))
        where = "on Ray" if on_ray else f"{workers} at a time"
        print(f"{len(missing)} of {len(different)} {kind.name} artifacts to make, {where}", flush=True)
        slots = 0 if on_ray else SLOTS // at_once  # Ray counts cores itself
        sent = [(kind, *job, compute, slots) for job in missing]
        release_memory()  # a notebook's own models: jobs go by what is free
        for i, folder in enumerate(run_jobs(_make, store, sent, workers), 1):
            print(f"{kind.name} {i}/{len(sent)} {folder.name}", flush=True)
    # a worker's kernels and threads, which change a trained model's last bits; not those of what comes after
    with prepared_torch(slot_threads()) if here else contextlib.nullcontext():
        build = functools.partial(_make, store, kind, compute=None if here else compute, slots=int(here))
        made = {name: build(*job) for name, job in different.items()}
    return {key: made[name] for key, name in names.items()}


def slot_threads() -> int:
    """How many threads a job has: a slot's share of the cores, or `$OMP_NUM_THREADS`."""
    return int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, (os.cpu_count() or 1) // SLOTS)


def _make(store: Store, kind: Kind, spec: Spec, work: Work, compute: ComputeSettings | None, slots: int) -> Path:
    build = functools.partial(launch.train, compute=compute) if compute else Kind.build
    return store.make(kind, spec, functools.partial(build, kind, work), take_slots(store.root, slots))


def run_jobs(make: Make, store: Store, jobs: Sequence[Work], workers: int) -> Iterator[Path]:
    """`make(store, *job)` of all jobs, `workers` side by side: the folders as they are finished.

    `make` must be importable by its name. A job has a slot's share of the cores, or `$OMP_NUM_THREADS` threads: as many
    when it is alone, since their number changes a trained model's last bits. Ray gives a job one core, and one GPU if
    the cluster has any, and decides itself how many run at a time. Raises EngineError, and what `make` raises.
    """
    if choose_engine()[0] == "ray":
        yield from _run_on_ray(make, store, jobs, workers)
        return
    check_script()
    context = get_context("forkserver")  # torch is imported once, in the server that workers are forked from
    context.set_forkserver_preload(["kardlib.kard.reranker", "kardlib.kard.answering"])
    try:
        with ProcessPoolExecutor(workers, context, initializer=begin_worker, initargs=(slot_threads(),)) as pool:
            futures = [pool.submit(make, store, *job) for job in jobs]
            processes = list(pool._processes.values())  # `shutdown` forgets them
            try:
                for future in as_completed(futures):  # one that fails is told before those that wait are begun
                    yield future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)  # else all other jobs are done before it is told
                for process in () if isinstance(error, Exception) else processes:
                    process.terminate()  # an interrupt: each would do its job, and one more that it holds already
                raise
    except BrokenProcessPool:
        raise EngineError(
            "a worker was killed, perhaps because the memory did not suffice: close other programs or take a smaller "
            "model, and run the same again; what is finished is kept"
        ) from None


def check_script() -> None:
    """Raise ScriptError where the running script asks for workers outside `if __name__ == "__main__":`.

    Every worker first runs the script that started it, under another `__name__`: to have what it defines.
    """
    main, frame = sys.modules["__main__"], inspect.currentframe()
    script = Path(getattr(main, "__file__", None) or "")  # a notebook has none, and is not run again
    while frame and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if not frame or not script.is_file():
        return
    for statement in ast.parse(script.read_text("utf-8")).body:
        here = statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0)
        if here and "__name__" not in ast.unparse(statement):
            raise ScriptError(
                f"{script}, line {frame.f_lineno}, makes artifacts in worker processes, which run the script again: "
                'put its lines under `if __name__ == "__main__":`'
            )


def choose_engine(engine: str = "", address: str = "") -> tuple[str, str]:
    """Engine and Ray's address: what is asked for, else what the environment says. Raises EngineError."""
    engine = engine or os.environ.get("KARD_ENGINE") or "local"
    if engine not in ("local", "ray"):
        raise EngineError(f"there is no engine {engine!r}: set KARD_ENGINE to local or ray")
    if address and engine != "ray":
        raise EngineError("an address is the Ray cluster's: add --engine ray")
    return engine, address or os.environ.get("KARD_RAY_ADDRESS", "")


@contextlib.contextmanager
def take_slots(root: Path, count: int) -> Iterator[None]:
    """Hold `count` of this machine's `SLOTS`, once so many are free: 0, 1, or all for who wants the machine alone.

    Notebooks that run side by side share them through the store in `root`, so that none leaves a core idle that another
    has use for. Whoever waits for all takes them in order: no two wait for each other. The memory that a job took is
    given back before its slot, so that the next one finds it free.
    """
    here = root / ".locks" / f"slot-{socket.gethostname()}"  # several machines may share the store
    slots = [FileLock(f"{here}-{number}.lock") for number in range(SLOTS)]
    with contextlib.ExitStack() as held:
        for slot in [_take_any(slots)] if count == 1 else slots[:count]:
            held.enter_context(slot)
        yield
        release_memory()


def _take_any(slots: Sequence[FileLock]) -> contextlib.AbstractContextManager[Any]:
    while True:
        for slot in slots:
            with contextlib.suppress(Timeout):
                return slot.acquire(timeout=0)
        time.sleep(0.1)


def begin_worker(threads: int) -> None:
    """What a worker process does first."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    gc.freeze()  # what was imported stays: the Trainer's collections need not look at it
    prepare_torch(threads)


def end_with_parent() -> None:
    """Wait until the process that asked for this worker has ended, however it did, and end too.

    A worker would wait for its next job for ever: it holds the writing end of its own queue open. The last one takes
    the fork server with it. What stays of a killed parent is the folder of the server's socket.
    """
    parent = parent_process()
    assert parent
    parent.join()
    shutil.rmtree(get_temp_dir(), ignore_errors=True)
    os._exit(1)


def connect_ray(address: str, cores: int = 1) -> Any:
    """The module `ray`, connected: a cluster's machine here becomes its driver, or Ray is started with so many `cores`.

    Raises EngineError within seconds where nobody answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    try:
        import ray
    except ImportError:
        raise EngineError(MISSING) from None
    if address not in ("", "auto"):
        check_address(address)
    if ray.is_initialized():
        return ray
    here: dict[str, Any] = {} if address else {"num_cpus": cores, "include_dashboard": False}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray has no class of its own for them
        said = f"Ray at {address or 'this machine'} cannot be used: {first_line(error)}"
        raise EngineError(f"{said}; {TOKEN}" if address else said) from error
    return ray


def check_ray(address: str) -> None:
    """Raise EngineError where Ray is missing or nobody answers at the address, within seconds. Starts nothing."""
    if address:
        connect_ray(address).shutdown()
    elif not importlib.util.find_spec("ray"):
        raise EngineError(MISSING)


def check_address(address: str) -> None:
    """Raise EngineError if at HOST:PORT nobody answers: Ray itself waits for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise EngineError(f"{address!r} is no address: write HOST:PORT as `ray start --head` prints it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise EngineError(
            f"no Ray head answers at {address} ({error}): start one there with `ray start --head`, or correct --address"
        ) from None


def _run_on_ray(make: Make, store: Store, jobs: Sequence[Work], cores: int) -> Iterator[Path]:
    ray = connect_ray(choose_engine()[1], cores)
    gpus = int(ray.cluster_resources().get("GPU", 0) > 0)
    run = ray.remote(_run_there).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
    root, force = store.root.absolute(), os.environ.get("KARD_FORCE", "")
    sent = [run.remote(make, store.url or str(root), str(root), job, force) for job in jobs]
    try:
        while sent:
            [reference], sent = ray.wait(sent)  # whichever ends first
            try:
                name = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None  # what `make` raised; around it is a traceback as text
            except ray.exceptions.RayError as error:
                raise EngineError(
                    f"Ray gave a job up whose machine died {RETRIES + 1} times ({first_line(error)}): what is "
                    "finished is kept, and the same command goes on from it"
                ) from error
            folder = store.find(name)
            if not folder:
                raise EngineError(
                    f"another machine made {name}, but it is not in {store.url or root}: set KARD_STORE to a folder "
                    "that all machines have at the same path, or to a URL that all can write to"
                )
            yield folder
    except BaseException:
        ray.shutdown()  # ends what is running; ray.cancel can take this process with it if a job ends at that moment
        raise


def _run_there(make: Make, folder_or_url: str, root: str, job: Work, force: str) -> str:
    """Runs on the machine that Ray chose: the name of the artifact that a job made."""
    os.environ["KARD_FORCE"] = force
    prepare_torch(threads=1)
    store = Store(folder_or_url)  # with this machine's own working copy
    return make(store, *(_localize(job, store, root) if store.url else job)).name


def _localize(value: Any, store: Store, root: str) -> Any:
    """An argument with the sender's folders of artifacts, below `root`, as folders in the store of this machine."""
    if isinstance(value, tuple):
        return tuple(_localize(v, store, root) for v in value)
    if isinstance(value, BaseModel):
        return value.model_copy(update={n: _localize(v, store, root) for n, v in value if isinstance(v, str)})
    if isinstance(value, str | Path) and Path(value).is_relative_to(root):
        name, *rest = Path(value).relative_to(root).parts
        folder = store.find(name)
        if not folder:
            raise EngineError(f"a job needs {name}, which is not in {store.url or store.root} as this machine sees it")
        return type(value)(folder.joinpath(*rest))
    return value
