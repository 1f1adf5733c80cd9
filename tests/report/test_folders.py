"""Where results belong: to a run's scale, data and settings, wherever a notebook is executed."""

from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import papermill
import pytest
from PIL import Image

from kardlib.presets import preset
from kardlib.report.figures import save_figure
from kardlib.report.folders import figures_folder, run_name, seen_from
from tests.folders import ROOT
from tests.tables import hits_table


def settings_of(scale="embedded", dataset="world", data_dir=None, **overrides):
    """A run's settings as a notebook states them."""
    return preset(scale, dataset, data_dir).override(overrides).model_dump(mode="json")


def test_no_settings_belong_into_the_published_figures(tmp_path):
    assert figures_folder({}, ROOT) == ROOT / "runs" / "embedded-world" / "figures"
    assert figures_folder(settings_of(dataset="rte"), ROOT) == ROOT / "runs" / "embedded-rte" / "figures"
    for scale in ("smoke", "embedded", "paper"):
        assert figures_folder(settings_of(scale), ROOT) == ROOT / "runs" / f"{scale}-world" / "figures"
    partial = {key: value for key, value in settings_of("smoke").items() if key in ("scale", "memorization")}
    assert figures_folder(partial, ROOT) == ROOT / "runs" / "smoke-world" / "figures"
    changed = run_name(settings_of(**{"retrieval.k": 1}))
    assert changed.startswith("embedded-world-retrieval.k=1-")
    assert figures_folder(settings_of(**{"retrieval.k": 1}), ROOT).parent == ROOT / "runs" / changed
    assert run_name(settings_of(**{"retrieval.k": 3})) == "embedded-world"  # as it is anyway


def test_changed_settings_never_share_a_run():
    students = [{"students": [f"some/model-with-a-long-name-of-{n:02} pieces"]} for n in range(20)]
    changes = [{}, *({"retrieval.k": k} for k in (1, 2)), {"seeds": [0]}, {"seeds": [0, 1]}, *students]
    assert len({run_name(settings_of(**change)) for change in changes}) == len(changes)
    assert all(set(run_name(settings_of(**change))) & set("/ \\:'\"[]") == set() for change in changes)


def test_own_data_are_a_run_by_what_is_in_their_files(tmp_path):
    folders = [tmp_path / "a" / "mine", tmp_path / "b" / "mine"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "questions.jsonl").write_text("one")
    first, second = (run_name(settings_of(dataset="own", data_dir=str(folder))) for folder in folders)
    assert first == second and first.startswith("embedded-own-mine-")
    (folders[1] / "notes.txt").write_text("not read")
    assert run_name(settings_of(dataset="own", data_dir=str(folders[1]))) == first
    (folders[1] / "gold.jsonl.gz").write_text("two")
    other = run_name(settings_of(dataset="own", data_dir=str(folders[1])))
    assert other != first and figures_folder(settings_of(dataset="own", data_dir=str(folders[1])), ROOT).parts[-3:] == (
        "runs", other, "figures",
    )  # fmt: skip


def test_paths_of_folders_are_said_as_a_notebook_needs_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("models/mine", "smollm2", "t5-nano-small"):
        Path(name).mkdir(parents=True)
    given = {"students": ["models/mine", "t5-nano-small", "smollm2", "google/t5"], "k": 3, "index": str(tmp_path)}
    told = given | {"students": ["../models/mine", "t5-nano-small", "smollm2", "google/t5"]}
    assert seen_from(Path("notebooks"), {"own": given}) == {"own": told}


def test_a_figure_goes_where_its_settings_belong_and_does_not_say_where_the_data_lay(tmp_path, monkeypatch):
    monkeypatch.setattr("kardlib.report.folders.REPOSITORY", tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    save = lambda **given: save_figure(plt.figure(), "x", hits_table(), None, {"settings": settings_of(**given)})  # noqa: E731
    save()
    assert (tmp_path / "runs" / "embedded-world" / "figures" / "x.csv").is_file()
    save(scale="smoke", dataset="own", data_dir="../mine")
    (png,) = (tmp_path / "runs").glob("smoke-own-mine-*/figures/x.png")
    with Image.open(png) as image:
        assert "mine" not in image.text["Provenance"]
    assert {path.name for path in tmp_path.iterdir()} == {"notebooks", "mine", "runs"}


@pytest.mark.parametrize("parameters", [{"scale": "smoke"}, {"overrides": {"memorization.draws": 3}}])
def test_papermill_from_the_root_writes_into_the_checkout(parameters, tmp_path, monkeypatch):
    """Its kernel stands where papermill was called, and the notebook saves by its parameters' default."""
    source = nbformat.read(ROOT / "notebooks" / "01_memorization_bound.ipynb", 4)
    (tag,) = [cell for cell in source.cells if "parameters" in cell.metadata.get("tags", [])]
    save = "from kardlib.presets import preset\nfrom kardlib.report import folders\nfrom pathlib import Path\n"
    save += "from kardlib.report.figures import plt, save_figure\nfrom tests.tables import hits_table\n"
    save += f"folders.REPOSITORY = Path({str(tmp_path / 'checkout')!r})\n"
    save += "settings = preset(scale).override(overrides).model_dump(mode='json', include={'scale', 'memorization'})\n"
    save += "save_figure(plt.figure(), '01_keys', hits_table(), figures_dir, {'settings': settings})"
    notebook = nbformat.v4.new_notebook(cells=[tag, nbformat.v4.new_code_cell(save)])
    (tmp_path / "checkout" / "figures").mkdir(parents=True)
    nbformat.write(notebook, tmp_path / "checkout" / "01.ipynb")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path / "checkout")
    papermill.execute_notebook(
        "01.ipynb", "../out.ipynb", parameters, kernel_name="python3", language="python", progress_bar=False
    )
    assert {path.name for path in tmp_path.iterdir()} == {"checkout", "out.ipynb"}
    assert not list((tmp_path / "checkout" / "figures").iterdir())
    (written,) = (tmp_path / "checkout" / "runs").rglob("01_keys.csv")
    assert written.parent.parent.name.startswith(("smoke-world", "embedded-world-memorization.draws=3-"))
