"""Papermill over the notebooks, in order, each in its own kernel; figures, executed copies and a report go to `runs/`.

The store keeps what is finished: a run that was stopped goes on when it is started again.
"""

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import papermill
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from kardlib import REPOSITORY, python_path
from kardlib.artifacts.disk import atomic_write
from kardlib.artifacts.engine import check_ray, choose_engine
from kardlib.artifacts.provenance import describe_provenance, now
from kardlib.artifacts.store import Store
from kardlib.errors import KardError, first_line, suggest
from kardlib.presets import GROWING, preset
from kardlib.report.captions import is_usual
from kardlib.report.folders import figures_folder, seen_from
from kardlib.report.page import WAITING, Result, read_result, read_scorecard, write_index
from kardlib.report.progress import Line, Progress, follow, read_durations
from kardlib.report.publishing import COLOURS, find_cell, publish_results, read_assignments
from kardlib.settings import GLUE_TASKS, RunSettings

SCORECARD = "14_"  # the notebook that reads the figures' data, so it waits for all others
CLASSIFYING = {"13", "14", "18"}  # run on texts that are sorted into classes
WITHOUT_RATIONALES = ("01", "04", "14", "15")  # notebooks
GRACE = 120  # seconds that an interrupted kernel has for what it has asked of a server
# of folders, before the process's number: machines may share theirs, and names of sockets may not have 108 letters
TEMPORARY = f"kard{zlib.crc32(socket.gethostname().encode()) % 0x10000:04x}-"


class ReproduceError(KardError, RuntimeError):
    """The notebooks cannot be run as asked, or one of them failed or is not fit to be published."""


def reproduce(
    scale: str = "embedded", dataset: str = "world", data_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None, *, only: Sequence[str] = (), start: str = "", force: bool = False,
    full: bool = False, publish: bool = False, at_once: int = 1, engine: str = "", address: str = "",
    root: Path = REPOSITORY,
) -> Path:  # fmt: skip
    """Run `root/notebooks/NN_*.ipynb` and return the index page `root/runs/{run_name(...)}/index.html`.

    `only` and `start` are numbers of notebooks ("03"); without `only`, a dataset runs the notebooks that apply to it.
    `force` builds all artifacts that these notebooks need again. `full` runs those of `grids.FULL` alone, with the
    parameters that stand there. Results go where `report.folders` says; `publish` copies them into the repository
    (`publish_results`) once all have run, and has the scorecard judge them. `at_once` notebooks run side by side: one
    draws while another trains. `engine` and `address` are those of `artifacts.engine.choose_engine`. After a notebook
    has failed, no other is started. Raises ReproduceError, PublishError, SettingsError, StoreError, EngineError.
    """
    from kardlib.kard.experiment import say_scale  # imported late, as all that opens data
    from kardlib.kard.grids import FULL

    overrides = dict(overrides or {})
    usual = preset(scale, dataset, data_dir)
    say_scale(usual, scale)
    settings, here = usual.override(overrides), root / "notebooks"  # where kernels run: paths are relative to it
    check_request(settings.scale, dataset, data_dir, overrides, publish)
    environment = kernel_environment(engine, address, force)
    notebooks = select_notebooks(here, settings, only, start, full)
    figures = figures_folder(settings.model_dump(mode="json"), root, full)
    run = figures.parent
    parameters = {
        "scale": settings.scale, "dataset": dataset, "data_dir": data_dir and os.path.relpath(data_dir, here),
        "overrides": seen_from(here, overrides), "figures_dir": os.path.relpath(figures, here),
    }  # fmt: skip
    given = {path: parameters | (FULL[path.name[:2]] if full else {}) for path in notebooks}
    for notebook in notebooks:
        check_parameters(notebook, given[notebook])
    check_writable(figures, *([here, root / "figures"] if publish else []))
    remove_temporary_folders()
    results = {path.stem: read_result(run / path.name) for path in choose_notebooks(here)}
    failed = None
    with follow(read_durations(run, notebooks), at_once) as progress:
        for result in run_notebooks(given, at_once, run, figures, environment, progress):
            results[result.notebook] = result
            write_index(run, [*results.values()], [WAITING], parameters)  # the scorecard takes half a second
            failed = failed or (result if result.status == "failed" else None)
    index = write_index(run, [*results.values()], read_scorecard(figures, root / "figures"), parameters)
    if failed:
        copy = os.path.relpath(run / f"{failed.notebook}.ipynb")
        raise ReproduceError(f"{failed.error} (see {copy}; finished work is kept)")
    if publish:
        publish_run([run / path.name for path in notebooks], dataset == "world" and not full, root, environment)
    return index


def check_request(scale: str, dataset: str, data_dir: str | None, overrides: Mapping[str, Any], publish: bool) -> None:
    """Raise ReproduceError before anything runs if folder or publishing do not fit."""
    allowed = GROWING if scale == "real" else set()
    if publish and (scale not in ("embedded", "real") or dataset == "own" or overrides.keys() - allowed):
        raise ReproduceError(
            f"only the scales embedded and real, with settings as they are (but {', '.join(sorted(GROWING))} of real) "
            "and not on your own data, are published: leave out --publish, or --scale, --dataset own and --set"
        )
    if dataset == "own" and data_dir is None:
        raise ReproduceError("--dataset own needs --data-dir: the folder that holds your questions.jsonl")
    if data_dir is not None and not Path(data_dir).is_dir():
        raise ReproduceError(f"there is no folder {data_dir}: correct --data-dir")


def check_writable(*folders: Path) -> None:
    """Raise ReproduceError before anything runs where a folder of results cannot be written."""
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            where = f"cannot write to {os.path.relpath(folder)} ({error.strerror})"
            raise ReproduceError(f"{where}: run from a checkout that you own, on a disk with room") from None


def select_notebooks(folder: Path, settings: RunSettings, only: Sequence[str], start: str, full: bool) -> list[Path]:
    """The notebooks of a run: those in `only`, else all that apply to the dataset. Raises ReproduceError, DataError."""
    from kardlib.kard.grids import FULL  # imported late, as all that opens data

    asked, dataset = {number.strip().zfill(2) for number in only}, settings.dataset
    if dataset in GLUE_TASKS and not asked <= CLASSIFYING:
        raise ReproduceError(f"{dataset} sorts texts into classes, which only notebooks 13, 14 and 18 do: drop --only")
    if full and (dataset != "world" or not asked <= FULL.keys()):
        raise ReproduceError(f"only notebooks {' and '.join(FULL)} have a full grid, of the closed world")
    if only:
        return choose_notebooks(folder, only, start)
    notebooks = choose_notebooks(folder, [*FULL] if full else (), start)
    return leave_out([path for path in notebooks if applies(path.name[:2], dataset)], settings)


def choose_notebooks(folder: Path, only: Sequence[str] = (), start: str = "") -> list[Path]:
    """The notebooks `NN_*.ipynb` of a folder, in order: those with numbers in `only`, from `start` on.

    Raises ReproduceError for a number without notebook, or if no notebook is left.
    """
    numbers = {path: path.name[:2] for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    if not numbers:
        raise ReproduceError(f"there are no notebooks NN_*.ipynb in {folder}: run from a checkout of the repository")
    known = set(numbers.values())
    kept, first = {number.strip().zfill(2) for number in only} or known, start.strip().zfill(2)
    if unknown := (kept | {first} if start else kept) - known:
        said = f"there is no notebook {', '.join(sorted(unknown))}: the notebooks are {', '.join(sorted(known))}"
        raise ReproduceError(said)
    chosen = [path for path, number in numbers.items() if number in kept and number >= first]
    if not chosen:
        raise ReproduceError(f"no notebook of {', '.join(sorted(kept))} comes from {start} on: drop --only or --from")
    return chosen


def leave_out(notebooks: list[Path], settings: RunSettings) -> list[Path]:
    """The notebooks without those that lack rationales or gold passages, which is said. Raises DataError."""
    dataset, numbers = settings.dataset, {path.name[:2] for path in notebooks}
    if dataset == "world" or numbers <= {*WITHOUT_RATIONALES, *CLASSIFYING}:
        return notebooks
    from kardlib.kard.experiment import open_settings  # imported late: torch takes seconds

    experiment = open_settings(settings)
    if not experiment.teacher:
        learnt = f"only answers are learnt, by notebooks {', '.join(WITHOUT_RATIONALES)}"
        print(f"nobody has written rationales for {dataset!r}: {learnt}")
        return [path for path in notebooks if path.name[:2] in WITHOUT_RATIONALES]
    if any(experiment.data.gold.get(q.id) for q in experiment.data.splits["test"]):
        return notebooks
    print(f"no test question of {dataset!r} has gold passages: why answers are wrong (12) is not asked")
    return [path for path in notebooks if path.name[:2] != "12"]


def applies(number: str, dataset: str) -> bool:
    """Whether a notebook runs on a dataset unless the user names it.

    Only the closed world is looked into by 00, trained on by 16, changed by 17, extended in 19 and drawn again in 21;
    13 and 18 sort texts into classes, and 15 is about your own data.
    """
    from kardlib.kard.grids import ALONE  # imported late, as all that opens data

    if dataset in GLUE_TASKS:
        return number in CLASSIFYING
    alone = dict.fromkeys(("00", "13", "18"), "world") | ALONE
    return dataset == "world" or alone.get(number, dataset) == dataset


def check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    """Raise ReproduceError for a parameter that the notebook's `parameters` cell does not have."""
    try:
        cell = find_cell(nbformat.read(notebook, as_version=4), "parameters")
        known = {} if cell is None else read_assignments(cell.source)
    except (ValueError, SyntaxError, nbformat.ValidationError) as error:
        raise ReproduceError(f"{notebook.name} cannot be read: {first_line(error)}") from None
    if cell is None:
        raise ReproduceError(
            f"{notebook.name} has no cell tagged 'parameters': add one that sets {', '.join(parameters)}"
        )
    for name in parameters:
        if name not in known:
            near = suggest(name, known)
            raise ReproduceError(f"{notebook.name} has no parameter {name!r}{near} (it has: {', '.join(known)})")


def kernel_environment(engine: str, address: str, force: bool) -> dict[str, str]:
    """The environment variables of the kernels. Raises EngineError if the engine is unknown or cannot be reached."""
    engine, address = choose_engine(engine, address)
    if engine == "ray":
        check_ray(address)
    store = Store()
    environment = {
        "PYTHONPATH": python_path(),
        "KARD_STORE": store.url or str(store.root.resolve()),  # kernels run in another folder
        "KARD_CACHE": str(store.root.resolve()),  # counts if the store is a URL
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),  # numpy's threads wait by spinning
        "KARD_ENGINE": engine,
        "KARD_RAY_ADDRESS": address,
        "RAY_TMPDIR": os.environ.get("RAY_TMPDIR", tempfile.gettempdir()),  # a cluster here is found by it
        "JPY_SESSION_NAME": "",  # nobody watches, even if a notebook called this
    }
    return environment | ({"KARD_FORCE": now()} if force else {})


def run_notebooks(notebooks: Mapping[Path, Mapping[str, Any]], at_once: int, *others: Any) -> Iterator[Result]:
    """The results of `run_notebook` as they end, `at_once` side by side; every notebook has its parameters.

    After one has failed, those under way go on and none is started. The scorecard's notebook starts once all others
    have ended.
    """
    failed, stopped = threading.Event(), threading.Event()

    def run_next(notebook: Path) -> Result | None:
        if failed.is_set() or stopped.is_set():
            return None
        result = run_notebook(notebook, stopped, notebooks[notebook], *others)
        if result.status == "failed":
            failed.set()
        return result

    with ThreadPoolExecutor(at_once) as pool:
        try:
            for last in (False, True):
                together = [path for path in notebooks if path.name.startswith(SCORECARD) == last]
                ended = as_completed([pool.submit(run_next, notebook) for notebook in together])
                yield from filter(None, (future.result() for future in ended))
        except BaseException:  # an interrupt: kernels have sessions of their own, where no Ctrl-C reaches them
            stopped.set()
            end_kernels()
            raise


def publish_run(copies: Sequence[Path], usual: bool, root: Path, environment: Mapping[str, str]) -> None:
    """Publish what was run, with its notebooks if it is the `usual` closed world; the scorecard counts all anew."""
    publish_results(copies, usual, root)
    if not usual or not any(copy.name.startswith(SCORECARD) for copy in copies):
        judge_published(root, environment)


def judge_published(root: Path, environment: Mapping[str, str]) -> None:
    """Run the scorecard's notebook on what is published of the closed world, and publish it. Raises ReproduceError."""
    notebooks, run = [*(root / "notebooks").glob(f"{SCORECARD}*.ipynb")], root / "runs" / "published"
    shutil.rmtree(run, ignore_errors=True)
    (figures := run / "figures").mkdir(parents=True)
    for table in (root / "figures").glob("*.csv"):
        if is_usual(table.stem):
            shutil.copy(table, figures)
    parameters = {"figures_dir": os.path.relpath(figures, root / "notebooks")}
    with follow(read_durations(run, notebooks), 1) as progress:
        for result in run_notebooks(dict.fromkeys(notebooks, parameters), 1, run, figures, environment, progress):
            if result.error:
                raise ReproduceError(f"what was run is published, but the scorecard is as it was: {result.error}")
    publish_results([run / path.name for path in notebooks], True, root)


def end_kernels() -> None:
    """Interrupt the kernels and end their workers: what a teacher was asked for is still received, for it is paid."""
    kernels = psutil.Process().children()
    started = {process for process in psutil.Process().children(recursive=True) if process not in kernels}
    with contextlib.suppress(KeyboardInterrupt):  # a second one: they are ended at once
        for process in started:
            send_signal(process, signal.SIGKILL)
        for process in kernels:
            send_signal(process, signal.SIGINT)
        if psutil.wait_procs(kernels, timeout=2)[1]:
            print(f"stopping: what is paid is waited for, {GRACE} s at most; once more ends it now", flush=True)
            psutil.wait_procs(kernels, timeout=GRACE)
    for process in psutil.Process().children(recursive=True):
        send_signal(process, signal.SIGKILL)


def send_signal(process: psutil.Process, sign: signal.Signals) -> None:
    """Send it unless the process has ended."""
    with contextlib.suppress(psutil.Error):
        process.send_signal(sign)


def run_notebook(
    notebook: Path, stopped: threading.Event, parameters: Mapping[str, Any], run: Path, figures: Path,
    environment: Mapping[str, str], progress: Progress,
) -> Result:  # fmt: skip
    """Execute one notebook; write its copy and its page into the folder `run`, even if a cell fails.

    Once `stopped` no other cell is begun: between two cells a kernel hears no interrupt. Raises ReproduceError then.
    """
    from kardlib.report.notebook_page import write_page  # imported late: nbconvert is slow

    name, start, began, date = notebook.stem, time.monotonic(), time.time_ns(), now()
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if is_run(cell)]
    count = sum("injected-parameters" not in c.metadata.get("tags", []) for c in cells) + 1  # papermill injects one
    line = progress.begin(name, count)
    prefix = f"{TEMPORARY}{os.getpid()}-"  # a killed run's copy is left there, and found by its number
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as temporary:
        copy = Path(temporary) / notebook.name
        (used := Path(temporary) / "used").touch()
        kernel: Any = kernel_of_this_python(
            {**environment, "TMPDIR": temporary, "KARD_USED": str(used)}, notebook.parent
        )
        with watch_memory(lambda: [k.provisioner.pid for k in kernel.started if k.provisioner]) as peak:
            problem = execute(notebook, copy, parameters, kernel, line, stopped)
        drawn = [path for path in sorted(figures.glob(f"{name[:2]}_*.png")) if path.stat().st_mtime_ns >= began]
        result = Result(
            name, "failed" if problem else "done", round(time.monotonic() - start, 1), peak[0],
            error=problem and f"{name}, cell {line.at} of {count}: {problem}", date=date,
            figures=[Path(os.path.relpath(path, run)).as_posix() for path in drawn],
            artifacts=sorted(set(used.read_text("utf-8").split())), made=" · ".join(describe_provenance()),
        )  # fmt: skip
        executed = nbformat.read(copy, as_version=4)
        executed.metadata["kard"] = asdict(result)
        executed.metadata.papermill |= {"input_path": notebook.name, "output_path": notebook.name}
    with atomic_write(run / notebook.name) as whole:
        nbformat.write(executed, whole)
    write_page(executed, run / f"{name}.html")
    progress.end(result)
    return result


def execute(
    notebook: Path, copy: Path, parameters: Mapping[str, Any], kernel: Any, line: Line, stopped: threading.Event
) -> str:
    """Execute one notebook into its copy, cell by cell; what went wrong, or nothing. Raises ReproduceError."""

    def begin_cell(cell: NotebookNode, **_: Any) -> None:
        if stopped.is_set():
            raise ReproduceError("the run was stopped")
        if is_run(cell):
            line.begin_cell(line.at + 1)

    try:
        papermill.execute_notebook(
            str(notebook), str(copy), dict(parameters), kernel_name="python3", language="python",
            progress_bar=False, on_cell_start=begin_cell, stdout_file=line, kernel_manager_class=kernel,
            shutdown_kernel="immediate",  # else a kernel takes most of a second to tear down its modules
        )  # fmt: skip
    except PapermillExecutionError as error:
        last = COLOURS.sub("", str(error.evalue)).strip().splitlines()[-1:]
        return ": ".join([error.ename, *last])
    except KardError:
        raise
    except RuntimeError:  # of a kernel, DeadKernelError too
        return "the kernel died, perhaps for want of memory"
    return ""


def is_run(cell: NotebookNode) -> bool:
    """Whether a cell is code, and not empty."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def remove_temporary_folders() -> None:
    """Remove the folders of runs that were killed: what their kernels left there, and how those were connected."""
    for folder in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}[0-9]*-*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(TEMPORARY).partition("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)


def kernel_of_this_python(environment: Mapping[str, str], folder: Path) -> type[AsyncKernelManager]:
    """A class of kernel managers that start this interpreter, whatever kernel is installed as "python3".

    Kernels run in `folder`: papermill would move this whole process there, and with it the other running notebooks. The
    attribute `started` lists the managers that were made.
    """
    spec = KernelSpec(**get_kernel_dict(), env=dict(environment))

    class ThisPython(AsyncKernelManager):
        started: ClassVar[list[AsyncKernelManager]] = []

        def __init__(self, **options: Any) -> None:
            super().__init__(connection_file=str(Path(environment["TMPDIR"]) / "connection.json"), **options)
            self.started.append(self)

        async def start_kernel(self, **options: Any) -> None:  # type: ignore[override]
            await self._async_start_kernel(**options, cwd=str(folder))

        async def _async_interrupt_kernel(self) -> None:
            if not self.shutting_down:  # a kernel that is about to end would complain
                await super()._async_interrupt_kernel()

        def _transport_default(self) -> str:  # of two that ask for free ports at once, one may get the other's
            return "ipc"

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return ThisPython


@contextlib.contextmanager
def watch_memory(started: Callable[[], Sequence[int | None]]) -> Iterator[list[int]]:
    """A list of one number: the peak, in bytes, of the resident memory of processes and of those that they started.

    `started()` gives their ids, with None for one that has not begun, and is called every 0.2 s. Sizes are summed, so a
    page that processes share counts more than once.
    """
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            size = 0
            for id in filter(None, started()):
                with contextlib.suppress(psutil.Error):  # a process has ended
                    process = psutil.Process(id)
                    size += sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
            peak[0] = max(peak[0], size)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
