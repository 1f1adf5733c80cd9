"""Take the results of a bundle's jobs back: each is checked against its job, then it is an artifact as if made here.

    unbundle(folder, store)

A student whose weights stayed on the other machine is an artifact that holds their hash: `identify` reads it, so that
its predictions have the names that they would have had.
"""

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from kardlib.artifacts.store import Store, artifact_name, canonical_json
from kardlib.jobs import (
    BROUGHT,
    RESULT,
    RESULTS,
    Bundle,
    BundleError,
    check_files,
    needed_job,
    read_bundle,
    read_result,
)
from kardlib.kard.experiment import PREDICTIONS
from kardlib.kard.pipeline import ADAPTED, STUDENT
from kardlib.models.catalogue import ELSEWHERE, identify

KINDS = {kind.name: kind for kind in (ADAPTED, STUDENT, PREDICTIONS)}


def unbundle(folder: Path, store: Store) -> str:
    """Check what was brought back and put it into the store; a sentence that says how many of what.

    Raises BundleError, once all good results are in the store, where one is not good or missing.
    """
    bundle, taken, problems, weights = read_bundle(folder), Counter[str](), list[str](), dict[str, str]()
    missing = {job for job in bundle.jobs if not (bundle.result(job) / RESULT).is_file()}
    for job in [job for job in bundle.sort() if job not in missing]:
        try:
            weights[job] = take_result(bundle, job, weights, store)
            taken[bundle.jobs[job]["kind"]] += 1
        except BundleError as error:
            problems.append(str(error))
    said = f"in the store: {', '.join(f'{number} {kind}' for kind, number in taken.items()) or 'nothing'}"
    if problems:
        more = f" (and {len(problems) - 1} more such results)" if len(problems) > 1 else ""
        raise BundleError(f"{problems[0]}{more}; {said}")
    if missing:
        raise BundleError(
            f"{len(missing)} of {len(bundle.jobs)} jobs have no result yet: go on with python -m kardlib.work "
            f"there, or carry all of results/ back; {said}"
        )
    return said


def take_result(bundle: Bundle, job: str, weights: Mapping[str, str], store: Store) -> str:
    """Put one result into the store; the sha256 of its weights, empty for texts. Raises BundleError and StoreError.

    `weights` are those of the jobs before it.
    """
    record, folder, need = bundle.jobs[job], bundle.result(job), needed_job(bundle.jobs[job])
    kind, result = KINDS[record["kind"]], read_result(folder)
    if kind.recipe != record["recipe"]:
        raise BundleError(f"{job} was bundled by recipe {record['recipe']}, which is {kind.recipe} now: bundle again")
    spec = canonical_json(record["spec"])
    if need:
        if need not in weights:
            raise BundleError(f"{job} needs the result of {need}, which is missing or not good: do that job again")
        spec = spec.replace(RESULTS + need, weights[need][:16])
        if result["need"] != weights[need] or weights[need][:16] not in spec:
            raise BundleError(f"{job} was made with other weights than {need} has: delete its result and do it again")
    check_files(folder, {name: known for name, known in result["files"].items() if name in BROUGHT})
    check_result(bundle, job)
    sha256 = str(result["weights"].get("sha256", ""))
    known = store.find(artifact_name(kind, json.loads(spec)))
    if known and sha256 and identify(str(known)) != sha256[:16]:
        raise BundleError(f"{job} is in the store as {known.name}, with other weights: delete one of the two")
    files: dict[str, Path | bytes] = {name: folder / name for name in result["files"] if (folder / name).is_file()}
    if len(files) < len(result["files"]):
        files = {name: path for name, path in files.items() if name in BROUGHT}
        files[ELSEWHERE] = json.dumps({"sha256": sha256, "device": result["provenance"]["device"]}).encode()
    else:
        check_files(folder, result["files"])
        if known and (known / ELSEWHERE).is_file():  # the same student comes again, with its weights
            shutil.rmtree(known)
    measured = {name: result[name] for name in ("tokens_per_second", "peak_memory") if name in result}
    made = {"seconds": result["seconds"], "provenance": result["provenance"] | bundle.commit | measured}
    store.take(kind, json.loads(spec), files, made)
    return sha256


def check_result(bundle: Bundle, job: str) -> None:
    """Raise BundleError where there are more or fewer texts than were asked for, or a loss is no number."""
    folder, (first, second, *_) = bundle.result(job), bundle.jobs[job]["work"]
    if bundle.jobs[job]["kind"] == PREDICTIONS.name:
        texts = json.loads((folder / "texts.json").read_text("utf-8"))
        if [len(samples) for samples in texts] != [second["settings"]["samples"]] * first["number"]:
            raise BundleError(f"{job} has not written a text for every source: delete {folder} and do it again")
    elif not all(math.isfinite(step["loss"]) for step in json.loads((folder / "losses.json").read_text("utf-8"))):
        raise BundleError(f"the loss of {job} became infinite or no number: lower student.lr and bundle again")
