"""A grid is trained in a process that has neither pydantic nor Java, and comes back as if it were made here."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kardlib import NANO
from kardlib.__main__ import main
from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import MANIFEST, Store, describe_files
from kardlib.bundle import Packed, bundle, count_operations, grid_cells, unbundle
from kardlib.errors import DataError
from kardlib.jobs import BUNDLE, RESULT, WEIGHTS, BundleError, check_files, find_model, name_job, read_bundle
from kardlib.kard.experiment import Cell, open_settings
from kardlib.kard.grids import CORPORA, PASSAGES
from kardlib.kard.pipeline import ADAPTED, answer
from kardlib.kard.student import load_student
from kardlib.models.catalogue import identify
from kardlib.presets import preset

GUARD = """
import runpy, sys

for name in ("pydantic", "pyserini", "faiss", "papermill"):
    sys.modules[name] = None  # an import of it raises ImportError

sys.argv = ["kardlib.work", *sys.argv[1:]]
runpy.run_module("kardlib.work", run_name="__main__", alter_sys=True)
"""


def work_there(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In the bundle's folder, with its own copy of the code."""
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", GUARD, ".", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def times_made(store: Store):
    return {p: p.stat().st_mtime_ns for p in store.root.glob("*/artifact.json")}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """An experiment, its cells, a store as it was before, the folder that was carried, and what was said there."""
    root = tmp_path_factory.mktemp("bundle")
    experiment = open_settings(preset("smoke"), Store(root / "store"))
    cells = [*grid_cells(experiment, ["04"]), Cell("dapt_kard", experiment.student, 0, CORPORA["own"])]
    bundle(experiment, cells, root / "written")
    shutil.copytree(root / "store", root / "before")
    shutil.copytree(root / "written", root / "carried")
    return experiment, cells, Store(root / "before"), root / "carried", work_there(root / "carried")


@pytest.fixture
def carried(there, tmp_path) -> Path:
    """A copy of what was carried, with its results."""
    return shutil.copytree(there[3], tmp_path / "carried")


def test_the_work_is_done_without_pydantic_and_java(there):
    folder, run = there[3], there[4]
    assert run.returncode == 0, run.stdout + run.stderr
    jobs = read_bundle(folder).jobs
    assert f"{len(jobs)} of {len(jobs)} jobs are left" in run.stdout and "minutes" in run.stdout
    for job, record in jobs.items():
        result = json.loads((folder / "results" / job / RESULT).read_text())
        assert not (folder / "results" / job / WEIGHTS).exists()  # its predictions are there: it is dropped
        assert result["peak_memory"]["bytes"] > 10**8 and result["provenance"]["versions"]["torch"]
        assert result["provenance"].items() >= read_bundle(folder).commit.items() > set()
        assert (len(result["weights"].get("sha256", "")) == 64) == (record["kind"] != "predictions")
    before = describe_files(folder / "results")
    again = work_there(folder)
    assert again.returncode == 0 and f"0 of {len(jobs)} jobs are left" in again.stdout
    assert describe_files(folder / "results") == before


def test_largest_first_and_predictions_after_their_student(there):
    found = read_bundle(there[3])
    order = found.sort()
    assert sorted(order) == sorted(found.jobs)
    for job, takers in found.takers.items():
        if job:
            last = order.index(job) + len(takers)
            assert {*order[order.index(job) + 1 : last + 1]} == {*takers} or job.startswith("adapted")
    (adapted,) = [job for job in order if job.startswith("adapted")]
    (student,) = found.takers[adapted]
    assert order[order.index(adapted) + 1 :][:2] == [student, *found.takers[student]]

    def cost(job):
        return found.jobs[job]["cost"] + sum(map(cost, found.takers[job]))

    roots = [cost(job) for job in order if job in found.takers[""]]
    assert roots == sorted(roots, reverse=True) and len(roots) > 4


def test_texts_that_jobs_share_are_written_once(there):
    folder = there[3]
    work = [
        value for record in read_bundle(folder).jobs.values() for value in record["work"] if isinstance(value, dict)
    ]
    names = [n for v in work for n in (*v.get("pairs", []), *([v["texts"]] if "texts" in v else []))]
    assert len(names) > len(set(names)) == len(list((folder / "texts").iterdir()))
    for place in (str(Path.home()), str(folder)):
        assert place not in (folder / BUNDLE).read_text()


def test_what_comes_back_is_what_would_have_been_made_here(there, carried, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    experiment, cells, before = there[:3]
    assert "5 student" in unbundle(carried, experiment.store) and "in the store" in unbundle(carried, experiment.store)
    made = times_made(experiment.store)
    with_detour = answer(experiment, cells)
    assert times_made(experiment.store) == made
    without = open_settings(experiment.settings, before)
    assert answer(without, cells) == with_detour
    assert {p.parent.name for p in made} == {p.parent.name for p in times_made(before)}
    for folder in before.root.glob("student-*"):
        student = experiment.store.root / folder.name
        assert identify(str(student)) == identify(str(folder)) and not (student / WEIGHTS).exists()
        with pytest.raises(DataError, match=f"the weights of {student.name} stayed on the machine that trained it"):
            load_student(str(student))
        manifest = json.loads((student / "artifact.json").read_text())
        assert manifest["provenance"]["versions"]["torch"] and manifest["provenance"]["peak_memory"]["bytes"] > 10**8

    # Asked with another k, a student whose weights stayed there is trained there again
    kard = Cell("kard_bm25", experiment.student, 0, PASSAGES[1])
    found = bundle(experiment, [kard], carried)
    (job,) = [job for job in found.jobs if not (found.result(job) / RESULT).is_file()]
    (student,) = [student for student, takers in found.takers.items() if job in takers]
    assert not found.is_done(student) and all(map(found.is_done, found.jobs.keys() - {job, student}))
    assert work_there(carried, "--keep-weights").returncode == 0
    unbundle(carried, experiment.store)
    assert len(times_made(experiment.store)) == len(made) + 1
    assert answer(experiment, [kard]) == answer(without, [kard])
    assert sum((folder / WEIGHTS).is_file() for folder in experiment.store.root.glob("student-*")) == 1


def change(folder: Path, what: str) -> str:
    """Spoil a bundle's folder in one way; the job that is hit."""
    found = read_bundle(folder)
    student, predictions = (next(j for j in found.sort() if j.startswith(kind)) for kind in ("student", "predictions"))
    told = json.loads((folder / BUNDLE).read_text())
    if what == "a text":
        path = folder / "results" / predictions / "texts.json"
        path.write_text(path.read_text() + " ")  # it still reads as it did
    elif what == "fewer texts":
        spoil(folder / "results" / predictions, "texts.json", json.dumps(["one"]))
    elif what == "no number":
        spoil(folder / "results" / student, "losses.json", '[{"step": 10, "loss": NaN}]')
    elif what == "a torn result":
        (folder / "results" / student / RESULT).write_text("{")
    elif what == "missing":
        shutil.rmtree(folder / "results" / predictions)
    elif what == "version":
        (folder / BUNDLE).write_text(json.dumps(told | {"format": 0}))
    elif what == "a job":
        told["jobs"][student]["spec"]["seed"] = 5
        (folder / BUNDLE).write_text(json.dumps(told))
    elif what == "torn":
        (folder / BUNDLE).write_text(json.dumps(told)[:-5])
    elif what == "nothing":
        (folder / BUNDLE).unlink()
    return student if what in ("no number", "a torn result") else predictions


def spoil(folder: Path, name: str, text: str) -> None:
    """A file that is as it was written, and wrong."""
    (folder / name).write_text(text)
    result = json.loads((folder / RESULT).read_text())
    result["files"][name] = describe_files(folder)[name]
    (folder / RESULT).write_text(json.dumps(result))


@pytest.mark.parametrize(
    "what, said, lost",
    [
        ("a text", r"the file texts.json of .* has changed: carry it again", 1),
        ("fewer texts", "has not written a text for every source", 1),
        ("no number", "became infinite or no number: lower student.lr", 4),  # the student, and what it wrote
        ("a torn result", "cannot be read: delete", 4),
        ("missing", "1 of 21 jobs have no result yet: go on with python -m kardlib.work there", 1),
        ("version", r"was written by kardlib 0.1.0, bundle format 0, and this is .* format 1", 21),
        ("a job", "bundle.json has changed", 21),
        ("torn", "bundle.json cannot be read: carry it again", 21),
        ("nothing", "there is no bundle in .*: give the folder that kard bundle wrote", 21),
    ],
)
def test_bad_input_is_one_sentence_and_costs_nothing_else(carried, tmp_path, what, said, lost):
    hit, jobs, store = change(carried, what), 21, Store(tmp_path / "store")
    with pytest.raises(BundleError, match=said) as raised:
        unbundle(carried, store)
    assert "\n" not in str(raised.value) and (hit in str(raised.value) or lost > 4 or what in ("a text", "missing"))
    assert len(times_made(store)) == jobs - lost


def test_a_changed_file_stops_the_work_before_it_begins(there, carried):
    found = read_bundle(carried)
    check_files(carried, found.files)
    (texts, *_) = sorted((carried / "texts").iterdir())
    texts.write_text(texts.read_text() + " ")
    with pytest.raises(BundleError, match=f"the file texts/{texts.name} of .* has changed: carry it again"):
        check_files(carried, found.files)
    assert (
        subprocess.run(
            [sys.executable, "-m", "kardlib.work", "."], cwd=carried, capture_output=True, text=True
        ).stderr.count("\n")
        == 1
    )


def test_a_job_that_fails_is_one_line_and_the_others_go_on(there, carried):
    told = json.loads((carried / BUNDLE).read_text())
    shutil.rmtree(carried / "results")
    alone = {j: r for j, r in told["jobs"].items() if r["kind"] == "predictions" and "/results/" not in json.dumps(r)}
    broken = {**next(iter(alone.values())), "builder": "kardlib.kard.student:no_such_function"}
    (carried / BUNDLE).write_text(json.dumps(told | {"jobs": {name_job(broken): broken, **alone}}))
    over = work_there(carried, "--minutes", "0.0001")
    assert over.returncode == 1 and "the time is over; the same command goes on" in over.stdout
    run = work_there(carried)
    (line,) = [line for line in run.stdout.splitlines() if "failed" in line]
    assert run.returncode == 1 and line.startswith(f"{name_job(broken)} failed: AttributeError: module")
    assert (carried / "failed" / f"{name_job(broken)}.txt").read_text().startswith("Traceback")
    assert {path.name for path in (carried / "results").iterdir()} == alone.keys()


def test_without_models_they_are_found_on_the_other_machine(there, tmp_path):
    experiment = there[0]
    few = [Cell("few_shot", experiment.student, 0, (("student.samples", 2),))]
    found = bundle(experiment, few, tmp_path / "out", with_models=False)
    (name,) = found.models
    with pytest.raises(BundleError, match=f"the bundle came without the model {name}: put its folder at"):
        find_model(found, name)
    shutil.copytree(there[3] / "models" / name, tmp_path / "out" / "models" / name)
    assert Path(find_model(found, name)).is_dir()
    (tmp_path / "out" / "models" / name / WEIGHTS).write_bytes(b"other")
    with pytest.raises(BundleError, match="holds other weights"):
        find_model(found, name)


@pytest.mark.parametrize("with_models", [True, False])
def test_smollm2_is_taken_from_the_store_and_not_looked_for_on_the_hub(tmp_path, monkeypatch, with_models):
    fetched = Path(shutil.copytree(NANO / "t5-nano-small", tmp_path / "store" / "smollm2-1"))  # stands for it
    (fetched / MANIFEST).write_text("{}")
    (fetched / "chat_template.jinja").write_text("{{ messages }}")
    monkeypatch.setattr("kardlib.models.smollm2.find_smollm2", lambda: fetched)
    packed = Packed(tmp_path / "out", with_models, {}, {})
    name, revision = packed.add_model("smollm2", None)
    assert revision is None and packed.models[name] == {"hub": "", "sha256": hash_file(fetched / WEIGHTS)}
    for file in (WEIGHTS, "chat_template.jinja"):
        assert (tmp_path / "out" / "models" / name / file).is_file() == with_models
    assert packed.parameters[name] == 134_515_008


def test_two_revisions_of_a_model_are_two_models(tmp_path):
    packed = Packed(tmp_path, False, {}, {})
    names = [packed.add_folder("org/model", revision)[0] for revision in ("a" * 40, "b" * 40, "a" * 40)]
    assert names == ["org--model-aaaaaaaa", "org--model-bbbbbbbb", "org--model-aaaaaaaa"] and len(packed.models) == 2


def test_a_training_on_text_alone_costs_what_its_own_epochs_take():
    run = preset("smoke")
    student, longer = (run.student.model_copy(update={"epochs": n, "lr": 1e-3}) for n in (1, 20))
    costs = [count_operations(ADAPTED, (["words"] * 9, run.dapt, knobs, 0)) for knobs in (student, longer)]
    more = count_operations(
        ADAPTED, (["words"] * 9, run.dapt.model_copy(update={"epochs": 2 * run.dapt.epochs}), student, 0)
    )
    assert costs[0] == costs[1] == more / 2 > 0


def test_the_command_says_what_it_wrote(there, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KARD_STORE", str(there[2].root))
    options = ["--scale", "smoke", "--set", "retrieval.k=1"]
    assert main(["bundle", "--only", "04", *options, str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "predictions; " in out and " MB (kardlib 0." in out and "cd out && python -m kardlib.work ." in out
    assert main(["unbundle", str(tmp_path / "out")]) == 2
    assert "jobs have no result yet" in capsys.readouterr().err
    (tmp_path / "full" / "of").mkdir(parents=True)
    for arguments, said in (
        (["--only", "77", *options, str(tmp_path / "new")], "notebook 77 has no grid on world: name some of 04, 05"),
        (["--only", "04", *options, str(tmp_path / "full")], "holds other things than a bundle: name a new folder"),
    ):
        assert main(["bundle", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_rag_stays_here(there):
    experiment = there[0]
    methods = {cell.method for cell in grid_cells(experiment, ["11"])}
    assert "kard_dense" in methods and not {"rag", "rag_warm"} & methods


def test_a_notebook_that_asks_for_other_seeds_than_the_settings_has_those_bundled():
    experiment = open_settings(preset("smoke").override({"seeds": [0, 1]}))
    seeds = {number: {cell.seed for cell in grid_cells(experiment, [number])} for number in ("17", "19", "21")}
    assert seeds["17"] == seeds["19"] == {0}
    cells = grid_cells(experiment, ["21"])
    assert cells and all(dict(cell.knobs)["world.seed"] == cell.seed for cell in cells)
