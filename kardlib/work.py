"""Do the jobs of a bundle where there are torch and transformers (with accelerate), and no pydantic, Java or network.

    cd BUNDLE && python -m kardlib.work .

Several processes may work in one folder, one for each GPU: none takes what another has begun.
"""

import argparse
import contextlib
import math
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from kardlib.artifacts.device import announce_device, pick_device, prepare_torch, release_memory
from kardlib.artifacts.disk import write_json
from kardlib.artifacts.provenance import provenance
from kardlib.artifacts.store import Kind, describe_files, locked
from kardlib.errors import KardError, StoppedError, first_line
from kardlib.jobs import BROUGHT, RESULT, WEIGHTS, Bundle, check_files, decode, needed_job, read_bundle, read_result

SPARE = 20  # seconds before the end of the time: the step that a training is in, and the end of this process
SAVING = 200e6  # bytes a second that a slow disk takes: how long before its end a training writes its last checkpoint
OVER = "the time is over; the same command goes on from what is finished"


def main(arguments: Sequence[str]) -> int:
    """The command: exit code 0 once all jobs are done, 1 while some are left, 2 for a bundle that is not whole."""
    parser = argparse.ArgumentParser(prog="python -m kardlib.work", description="do the jobs of a bundle")
    parser.add_argument("folder", type=Path, metavar="BUNDLE")
    parser.add_argument("--minutes", type=float, metavar="N", help="stop cleanly before so many minutes are over")
    parser.add_argument("--keep-weights", action="store_true", help="keep the students' weights, to bring them back")
    options = parser.parse_args(arguments)
    began = psutil.Process().create_time()  # imports take seconds
    end = began + 60 * options.minutes if options.minutes is not None else math.inf
    try:
        bundle = read_bundle(options.folder.resolve())
        check_files(bundle.folder, bundle.files)
        work(bundle, end, options.keep_weights)
    except KardError as error:
        print(f"kardlib.work: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kardlib.work: stopped; the same command goes on from what is finished", file=sys.stderr)
        return 130
    return 0 if all(map(bundle.is_done, bundle.jobs)) else 1


def work(bundle: Bundle, end: float, keep_weights: bool) -> None:
    """Do the jobs that are left until `end`, as time.time() counts. One that fails is one line; the others go on."""
    from kardlib.models.training import STOP  # imported late: it brings torch

    STOP.clear()
    announce_device()
    if pick_device().type == "cpu":
        prepare_torch(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    pace: dict[str, tuple[float, float]] = {}  # by kind what was done here: seconds, and what they were thought to cost
    print(f"{bundle.run}: {describe_left(bundle, pace)}", flush=True)
    for job in bundle.sort():
        record, need = bundle.jobs[job], needed_job(bundle.jobs[job])
        with locked(bundle.folder, job, wait=False) as free:
            if not free or bundle.is_done(job) or (need and not (bundle.result(need) / WEIGHTS).is_file()):
                continue
            began = time.monotonic()
            try:
                with stopped_at(end, record, guess(record, pace)):
                    do_job(bundle, job)
            except StoppedError as error:
                print(f"{job}: {error}\n{OVER}", flush=True)
                return
            except Exception as error:
                write_failure(bundle.folder, job, error)
                continue
            took, (seconds, cost) = time.monotonic() - began, pace.get(record["kind"], (0.0, 0.0))
            pace[record["kind"]] = (seconds + took, cost + record["cost"])
            print(f"{job} ({record['label']}) took {took:.0f} s: {describe_left(bundle, pace)}", flush=True)
        if need and not keep_weights and all(map(bundle.is_done, bundle.takers[need])):
            drop_weights(bundle.result(need))


def drop_weights(result: Path) -> None:
    """Delete what is not brought back."""
    for path in result.iterdir():
        if path.name not in (RESULT, *BROUGHT):
            path.unlink(missing_ok=True)


def do_job(bundle: Bundle, job: str) -> None:
    """Make what a job is for: its result appears whole or not at all; a killed one goes on from what `partial/` has."""
    record, partial, need = bundle.jobs[job], bundle.folder / "partial" / job, needed_job(bundle.jobs[job])
    given, resumed = [decode(value, bundle) for value in record["work"]], partial.exists()
    partial.mkdir(parents=True, exist_ok=True)
    forget_jobs()
    began = time.monotonic()
    Kind(record["kind"], record["recipe"], record["builder"]).build(given, partial)
    seconds = time.monotonic() - began
    shutil.rmtree(partial / "checkpoints", ignore_errors=True)
    (partial / RESULT).unlink(missing_ok=True)  # of a killed process
    files = describe_files(partial)
    result = {
        "job": job, "need": need and read_result(bundle.result(need))["weights"]["sha256"],
        "weights": files.get(WEIGHTS, {}), "files": files,
        "seconds": seconds, "resumed": resumed,  # then the seconds are those of the last part
        "peak_memory": measure_memory(), "provenance": provenance() | bundle.commit,
    }  # fmt: skip
    write_json(partial / RESULT, result)
    shutil.rmtree(bundle.result(job), ignore_errors=True)
    bundle.result(job).parent.mkdir(exist_ok=True)
    os.replace(partial, bundle.result(job))


def write_failure(folder: Path, job: str, error: Exception) -> None:
    """One line here, and all that Python says in `failed/`."""
    (folder / "failed").mkdir(exist_ok=True)
    (folder / "failed" / f"{job}.txt").write_text("".join(traceback.format_exception(error)), "utf-8")
    said = str(error) if isinstance(error, KardError) else f"{type(error).__name__}: {first_line(error)}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        said = "the GPU's memory does not suffice: bundle again with a lower student.batch or student.generation_batch"
    print(f"{job} failed: {said} (failed/{job}.txt says more)", flush=True)


# Until when


@contextlib.contextmanager
def stopped_at(end: float, record: Mapping[str, Any], expected: float) -> Iterator[None]:
    """Raise StoppedError before `end`, or at SIGTERM: in a training once it has written a checkpoint, else at once.

    What cannot go on from a checkpoint is not begun where the `expected` seconds are not left.
    """
    from kardlib.models.training import STOP  # imported late: it brings torch

    if STOP.is_set():
        raise StoppedError("not begun")
    trains = record["kind"] != "predictions"
    last = SPARE + 12 * record["parameters"] / SAVING if trains else 1  # a checkpoint holds Adam's moments too
    left = end - time.time() - last
    if left <= 0 or (not trains and expected > left):
        raise StoppedError("not begun")

    def stop(*_: Any) -> None:
        STOP.set()
        if not trains:
            raise StoppedError("stopped, it begins anew")

    before = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, left if left < math.inf else 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def guess(record: Mapping[str, Any], pace: Mapping[str, Sequence[float]]) -> float:
    """Seconds that a job will take at the pace of its kind, else of all kinds; 0 before anything was done."""
    known = [pace[record["kind"]]] if record["kind"] in pace else list(pace.values())
    cost = sum(c for _, c in known)
    return float(record["cost"]) * sum(s for s, _ in known) / cost if cost else 0.0


def describe_left(bundle: Bundle, pace: Mapping[str, Sequence[float]]) -> str:
    """How many jobs are left, and for how long."""
    left = [record for job, record in bundle.jobs.items() if not bundle.is_done(job)]
    seconds = sum(guess(record, pace) for record in left)
    time_left = f", about {seconds / 60:.1f} minutes" if pace and left else ""
    return f"{len(left)} of {len(bundle.jobs)} jobs are left{time_left}"


# What is measured


def forget_jobs() -> None:
    """Give back what earlier jobs took, and count the GPU's peak anew."""
    import torch

    release_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def measure_memory() -> dict[str, Any]:
    """Bytes at the peak: of the GPU in this job, or of this process as a whole."""
    import torch

    if torch.cuda.is_available():
        return {"of": "GPU", "bytes": torch.cuda.max_memory_allocated()}
    return {"of": "process", "bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
