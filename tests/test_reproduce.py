import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
import psutil
import pytest

from kardlib import REPOSITORY
from kardlib.artifacts.disk import UNFINISHED
from kardlib.artifacts.store import Kind, artifact_name
from kardlib.kard.experiment import write_example
from kardlib.reproduce import (
    TEMPORARY,
    ReproduceError,
    applies,
    choose_notebooks,
    reproduce,
)
from kardlib.settings import SettingsError

PATIENCE = 600  # seconds, where the machine is busy; pytest's own limit is above it
PARAMETERS = (
    'scale = "embedded"\ndataset = "world"\ndata_dir = None  # a folder\noverrides = {}\nfigures_dir = "../figures"'
)


def write_notebook(root: Path, name: str, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    cells = [nbformat.v4.new_markdown_cell(f"# {name}")]
    if parameters is not None:
        cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    metadata = {"kernelspec": {"name": "gone", "display_name": "gone", "language": "python"}}
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def printed(copy: Path) -> str:
    cells = nbformat.read(copy, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells if cell.cell_type == "code" for o in cell.outputs)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of its own, named as a user would: from where he stands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KARD_STORE", "store")
    return tmp_path / "store"


def test_runs_in_order_and_writes_copies_pages_and_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = "import base64, pathlib\nfolder = pathlib.Path(figures_dir)\nfolder.mkdir(exist_ok=True)\n"
    draw += "(folder / '02_curve & <b>.png').write_bytes(b'x')"
    write_notebook(
        tmp_path, "02_second", "import os, sys\nprint(sys.executable, os.getcwd(), scale, dataset, overrides)", draw
    )
    write_notebook(
        tmp_path,
        "01_<i>first & co",
        "from kardlib.artifacts.store import Store\nprint(Store().root)",
        "import time\nblock = b'x' * 100_000_000\ntime.sleep(2)",
    )
    index = reproduce(root=tmp_path)
    run = tmp_path / "runs" / "embedded-world"
    assert index == run / "index.html"
    assert printed(run / "02_second.ipynb").split() == [
        sys.executable,
        str(tmp_path / "notebooks"),
        "embedded",
        "world",
        "{}",
    ]
    assert printed(run / "01_<i>first & co.ipynb").strip() == str(tmp_path / "store")
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [
        [name, how] for name in ("01_<i>first & co", "02_second") for how in ("begins", "done")
    ]
    assert [line[-1] for line in lines[1::2]] == ["(1 of 2 notebooks)", "(2 of 2 notebooks)"]
    page = index.read_text()
    assert "01_&lt;i&gt;first &amp; co</a>" in page and "<i>first" not in page
    assert 'href="01_%3Ci%3Efirst%20%26%20co.html"' in page and (run / "01_<i>first & co.html").exists()
    assert 'src="figures/02_curve%20%26%20%3Cb%3E.png"' in page and page.count("<img") == 1
    made = {path.name for path in tmp_path.iterdir()} - {"store"}  # which is there once something is made
    assert made == {"notebooks", "runs"}, "only --publish writes figures/"
    assert page.count(">done<") == 2
    result = nbformat.read(run / "01_<i>first & co.ipynb", as_version=4).metadata["kard"]
    assert result["seconds"] > 0 and result["peak_bytes"] > 100_000_000
    assert str(tmp_path) not in json.dumps(nbformat.read(run / "02_second.ipynb", as_version=4).metadata)
    assert not list(run.glob(".*"))


def test_two_run_side_by_side_and_the_scorecard_waits_for_all(tmp_path: Path) -> None:
    meet = "import pathlib, time\nmine, other = (pathlib.Path(name) for name in {})\nmine.touch()\n"
    meet += "while not other.exists():\n    time.sleep(0.05)"
    write_notebook(tmp_path, "01_one", meet.format(("one", "two")), "time.sleep(1)\npathlib.Path('end').touch()")
    write_notebook(tmp_path, "02_two", meet.format(("two", "one")))
    write_notebook(tmp_path, "14_scorecard", "import os\nprint({'end', 'late'} <= set(os.listdir()))")
    write_notebook(tmp_path, "15_own", "import pathlib\npathlib.Path('late').touch()")
    reproduce(root=tmp_path, at_once=2)
    assert printed(tmp_path / "runs" / "embedded-world" / "14_scorecard.ipynb").strip() == "True"


def test_the_report_says_which_artifacts_were_shared(tmp_path: Path) -> None:
    make = "from kardlib.artifacts.store import Kind, Store\nfor kind in {}:\n"
    make += "    Store().make(Kind(kind), {{}}, lambda folder: (folder / 'file').write_text('1'))"
    write_notebook(tmp_path, "01_one", make.format(("index", "run")))
    write_notebook(tmp_path, "02_two", make.format(("index", "reranker", "index")))
    write_notebook(tmp_path, "03_three", make.format(("index", "reranker", "run", "student")))
    page = reproduce(root=tmp_path).read_text()
    for said in ("<td>2<td>", "<td>2, 1 shared with 01<td>", "<td>4, 2 shared with 01, 1 shared with 02<td>"):
        assert said in page


def test_settings_reach_the_notebook_and_keep_figures_out_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_notebook(tmp_path, "01_first", "print(dataset, overrides, figures_dir, data_dir)")
    run = reproduce("smoke", "obqa", "mine", {"retrieval.k": 1}, root=tmp_path).parent
    assert run.parent == tmp_path / "runs" and run.name.startswith("smoke-obqa-retrieval.k=1-")
    said = printed(run / "01_first.ipynb")
    assert said.split() == ["obqa", "{'retrieval.k':", "1}", f"../runs/{run.name}/figures", "../mine"]


def test_every_folder_of_own_data_has_a_run_of_its_own_and_none_is_published(tmp_path: Path) -> None:
    write_notebook(tmp_path, "03_first", "print(figures_dir)")
    runs = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "questions.jsonl").write_text(f"{number}")
        runs.append(reproduce("embedded", "own", str(number), only=["03"], root=tmp_path).parent)
        assert printed(runs[-1] / "03_first.ipynb").strip() == f"../runs/{runs[-1].name}/figures"
    assert runs[0] != runs[1]


def test_a_misspelt_parameter_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_fine", "print(1)")
    write_notebook(tmp_path, "02_misspelt", parameters=PARAMETERS.replace("dataset", "datset"))
    with pytest.raises(ReproduceError) as error:
        reproduce(root=tmp_path)
    known = "scale, datset, data_dir, overrides, figures_dir"
    said = f"02_misspelt.ipynb has no parameter 'dataset'; did you mean 'datset'? (it has: {known})"
    assert str(error.value) == said and not (tmp_path / "runs").exists()
    write_notebook(tmp_path, "02_misspelt", parameters=None)
    with pytest.raises(
        ReproduceError, match=r"02_misspelt.ipynb has no cell tagged 'parameters': add one that sets scale, "
    ):
        reproduce(root=tmp_path)
    (tmp_path / "notebooks" / "02_misspelt.ipynb").write_text("{")
    with pytest.raises(ReproduceError, match=r"02_misspelt.ipynb cannot be read: "):
        reproduce(root=tmp_path)


def test_wrong_settings_are_an_error_before_anything_runs(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_first", "print(1)")
    with pytest.raises(SettingsError, match=r"'retrieval.kk'"):
        reproduce(overrides={"retrieval.kk": 1}, root=tmp_path)
    with pytest.raises(SettingsError, match=r"k = 200 .* 100"):
        reproduce(overrides={"retrieval.k": 200}, root=tmp_path)
    with pytest.raises(ReproduceError, match="there is no folder nowhere: correct --data-dir"):
        reproduce(dataset="obqa", data_dir="nowhere", root=tmp_path)
    with pytest.raises(ReproduceError, match="--dataset own needs --data-dir: the folder that holds"):
        reproduce(dataset="own", root=tmp_path)
    with pytest.raises(SettingsError, match="data_dir is not read with the dataset world: name your data's dataset"):
        reproduce(data_dir=str(tmp_path), root=tmp_path)
    with pytest.raises(ReproduceError, match="rte sorts texts into classes, which only notebooks 13, 14 and 18 do"):
        reproduce(dataset="rte", only=["2"], root=tmp_path)
    with pytest.raises(SettingsError, match="'dataset' is no single setting: choose it by --dataset"):
        reproduce(overrides={"dataset": "obqa"}, root=tmp_path)
    fewer = {"overrides": {"methods": ["fine_tuning"]}}
    for unfit in (
        {"scale": "smoke"}, {"dataset": "own", "data_dir": "."}, {"overrides": {"retrieval.k": 1}}, fewer,
        {"scale": "real", "dataset": "obqa", "overrides": {**fewer["overrides"], "retrieval.k": 1}},
        {"scale": "real", "overrides": {"seeds": [0]}},  # the closed world has no such scale
    ):  # fmt: skip
        said = r"only the scales embedded and real, with settings as they are \(but methods, reranker.questions, seeds"
        with pytest.raises(ReproduceError, match=said):
            reproduce(**unfit, publish=True, root=tmp_path)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("place", ["runs", "figures"])
def test_a_checkout_that_cannot_be_written_is_said_before_anything_runs(tmp_path: Path, place: str) -> None:
    write_notebook(tmp_path, "01_first", "import pathlib\npathlib.Path('../ran').touch()")
    (tmp_path / place).write_text("a file where the folder should be")
    with pytest.raises(ReproduceError, match=rf"^cannot write to {place}.* \(.*\): run from a checkout that you own"):
        reproduce(root=tmp_path, publish=place == "figures")
    assert not (tmp_path / "ran").exists()


def test_a_failing_cell_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_fine", "print(1)")
    write_notebook(tmp_path, "02_fails", "x = 1", "raise ValueError('first line\\nno <script> here')", "y = 2")
    write_notebook(tmp_path, "03_never", "print(3)")
    with pytest.raises(ReproduceError) as error:
        reproduce(root=tmp_path)
    run = tmp_path / "runs" / "embedded-world"
    said = "02_fails, cell 4 of 5: ValueError: no <script> here"
    assert str(error.value) == f"{said} (see runs/embedded-world/02_fails.ipynb; finished work is kept)"
    outputs = [o for c in nbformat.read(run / "02_fails.ipynb", as_version=4).cells for o in c.get("outputs", [])]
    assert [o.ename for o in outputs] == ["ValueError"] and (run / "02_fails.html").exists()
    page = (run / "index.html").read_text()
    assert said.replace("<script>", "&lt;script&gt;") in page and "no <script>" not in page
    assert page.count(">done<") == page.count(">failed<") == page.count("<td>not run") == 1


def test_a_notebook_under_way_ends_after_another_has_failed(tmp_path: Path) -> None:
    wait = "while not pathlib.Path('../runs/embedded-world/02_fails.html').exists(): time.sleep(0.05)"
    write_notebook(tmp_path, "01_slow", f"import pathlib, time\n{wait}", "print('to the end')")
    write_notebook(tmp_path, "02_fails", "raise ValueError('no')")
    write_notebook(tmp_path, "03_never", "print(3)")
    with pytest.raises(ReproduceError, match=r"^02_fails, cell 3 of 3: ValueError: no \(see runs/.*; finished work is"):
        reproduce(root=tmp_path, at_once=2)
    run = tmp_path / "runs" / "embedded-world"
    assert "to the end" in printed(run / "01_slow.ipynb") and not (run / "03_never.ipynb").exists()


def test_a_kernel_that_dies_is_named(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_dies", "import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(ReproduceError, match=r"^01_dies, cell 3 of 3: the kernel died, perhaps for want of memory"):
        reproduce(root=tmp_path)


BUILD = """
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from kardlib.artifacts.store import Kind, Store
from kardlib.artifacts.disk import atomic_write
def build(folder):
    for step in range(4):
        if not (folder / f"{step}.txt").exists():
            with open("../log", "a") as log:
                print(step, file=log)
            time.sleep(0.3)
            with atomic_write(folder / f"{step}.txt") as temporary:
                temporary.write_text(str(step))
        if step == 1 and Path("../hang").exists():
            Path("../hung").touch()
            time.sleep(100)
print(Store().make(Kind("slow"), {}, build).name)
"""


def heed_signals() -> None:
    """A shell has the first one ignored by what it runs in the background, `nohup` the second one."""
    for sign in (signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, signal.SIG_DFL)


def start_runner(root: Path, variables: Mapping[str, str] | None = None, only: str = "") -> subprocess.Popen[str]:
    """The command line on the notebooks of a folder."""
    code = "import sys, pathlib, kardlib.reproduce as r, kardlib.__main__ as m\n"
    code += "r.reproduce.__kwdefaults__['root'] = m.REPOSITORY = pathlib.Path(sys.argv[1])\n"
    code += "sys.exit(m.main(['reproduce', '--jobs', '1', *sys.argv[2:]]))"
    environment = os.environ | {"KARD_STORE": str(root / "store")} | (variables or {})
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root), *(["--only", only] if only else [])],
        cwd=REPOSITORY,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        preexec_fn=heed_signals,
    )


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_fine", "print(1)")
    write_notebook(tmp_path, "02_slow", BUILD)
    (tmp_path / "hang").touch()
    killed = start_runner(tmp_path)
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "hung").exists():
        assert time.monotonic() < end and killed.poll() is None
        time.sleep(0.05)
    kernels = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    page = (tmp_path / "runs" / "embedded-world" / "index.html").read_text()
    assert page.count(">done<") == page.count("<td>not run") == 1 and page.endswith("</html>\n")
    assert psutil.wait_procs(kernels, timeout=PATIENCE)[1] == [], "a kernel outlived its run"
    assert not (tmp_path / "store" / artifact_name(Kind("slow"), {})).exists()
    assert not [*tmp_path.rglob(f"runs/**/{UNFINISHED}*")], "half a notebook stays in the run's folder"

    (tmp_path / "hang").unlink()
    reproduce(root=tmp_path)
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3"], "a finished step was done again"
    assert printed(tmp_path / "runs" / "embedded-world" / "02_slow.ipynb").strip() == artifact_name(Kind("slow"), {})
    reproduce(only=["02"], force=True, root=tmp_path)
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3"] * 2
    page = (tmp_path / "runs" / "embedded-world" / "index.html").read_text()
    assert page.count(">done<") == 2, "what ran before stays in the index"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Sockets' names may not have 108 letters."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


SWEEP = """
from pathlib import Path
from kardlib.artifacts.engine import run_jobs
from kardlib.artifacts.store import Store
from tests.jobs import write_folder
Path("../hung").touch()
list(run_jobs(write_folder, Store(), [(number,) for number in range(100)], 2))
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process_and_no_temporary_file(
    tmp_path: Path, short_folder: Path, sign: signal.Signals
) -> None:
    """What only a run that was killed outright leaves in the temporary folder the next one removes."""
    write_notebook(tmp_path, "01_slow", SWEEP)
    write_notebook(tmp_path, "02_fine", "print(1)")
    temporary = short_folder
    environment = {"TMPDIR": str(temporary), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    runner = start_runner(tmp_path, environment)
    end = time.monotonic() + PATIENCE
    while not list((tmp_path / "store").glob("folder-*")):
        assert time.monotonic() < end and runner.poll() is None
        time.sleep(0.05)
    left = psutil.Process(runner.pid).children(recursive=True)
    assert len(left) >= 4, "a kernel, its workers' server and the workers"
    runner.send_signal(sign)
    runner.communicate(timeout=PATIENCE)
    assert runner.returncode == (-sign if sign == signal.SIGKILL else 130)
    assert psutil.wait_procs(left, timeout=PATIENCE)[1] == []
    if sign == signal.SIGKILL:
        again = start_runner(tmp_path, environment, "02")
        again.communicate(timeout=PATIENCE)
        assert again.returncode == 0
    assert not [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]
    assert not (tmp_path / "runtime").exists() or not list((tmp_path / "runtime").iterdir())


ASKED = """
import time
from pathlib import Path
try:
    Path("../asked").touch()
    time.sleep(100)
except KeyboardInterrupt:
    time.sleep(4)
    Path("../received").touch()
    raise
"""


def test_an_interrupt_waits_for_what_a_kernel_has_asked_a_server_for(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_asks", ASKED)
    runner = start_runner(tmp_path)
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "asked").exists():
        assert time.monotonic() < end and runner.poll() is None
        time.sleep(0.05)
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=PATIENCE)
    assert runner.returncode == 130 and (tmp_path / "received").exists()
    assert "stopping: what is paid is waited for, 120 s at most; once more ends it now" in out


def test_a_kernel_that_is_killed_at_its_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.py").write_text(
        "import os, sys\nif any('ipykernel' in word for word in sys.orig_argv):\n    os.kill(os.getpid(), 9)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    write_notebook(tmp_path, "01_first", "print(1)")
    with pytest.raises(ReproduceError, match=r"^01_first, cell 0 of 3: the kernel died, perhaps for want of memory"):
        reproduce(root=tmp_path)
    assert "<td>not run" not in (tmp_path / "runs" / "embedded-world" / "index.html").read_text()


def test_two_runs_at_once_share_one_store(tmp_path: Path) -> None:
    write_notebook(tmp_path, "01_slow", BUILD)
    both = [start_runner(tmp_path) for _ in range(2)]
    for process in both:
        process.communicate(timeout=PATIENCE)
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3"]
    assert artifact_name(Kind("slow"), {}) in printed(tmp_path / "runs" / "embedded-world" / "01_slow.ipynb")


def test_a_kernel_is_reached_through_files_of_its_own(tmp_path: Path) -> None:
    """Ports are asked for before the kernel listens: two runs at once may be given the same, and one kernel dies."""
    show = "import ipykernel\ninfo = ipykernel.get_connection_info(unpack=True)\nprint(info['transport'], info['ip'])"
    write_notebook(tmp_path, "01_reached", show)
    reproduce(root=tmp_path)
    transport, address = printed(tmp_path / "runs" / "embedded-world" / "01_reached.ipynb").split()
    assert transport == "ipc"
    assert Path(address).parent.name.startswith(TEMPORARY)


def test_this_python_runs_whatever_is_installed_as_python3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impostor = tmp_path / "jupyter" / "kernels" / "python3"
    impostor.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "impostor", "language": "python"}
    (impostor / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(tmp_path, "01_first", "import sys\nprint(sys.executable)")
    reproduce(root=tmp_path)
    assert printed(tmp_path / "runs" / "embedded-world" / "01_first.ipynb").strip() == sys.executable


def test_choosing_notebooks(tmp_path: Path) -> None:
    with pytest.raises(ReproduceError, match="there are no notebooks NN_"):
        choose_notebooks(tmp_path / "notebooks")
    for name in ("02_b", "04_d", "03_c", "draft"):
        write_notebook(tmp_path, name)
    folder = tmp_path / "notebooks"
    assert [p.stem for p in choose_notebooks(folder)] == ["02_b", "03_c", "04_d"]
    assert [p.stem for p in choose_notebooks(folder, ["4", "02"])] == ["02_b", "04_d"]
    assert [p.stem for p in choose_notebooks(folder, start="3")] == ["03_c", "04_d"]
    assert [p.stem for p in choose_notebooks(folder, ["02", "04"], "03")] == ["04_d"]
    with pytest.raises(ReproduceError, match="there is no notebook 05: the notebooks are 02, 03, 04"):
        choose_notebooks(folder, ["02", "05"])
    with pytest.raises(ReproduceError, match="there is no notebook xx"):
        choose_notebooks(folder, start="xx")
    with pytest.raises(ReproduceError, match="no notebook of 02 comes from 03 on"):
        choose_notebooks(folder, ["02"], "03")


def test_publishing_leaves_no_trace_of_the_machine(tmp_path: Path) -> None:
    show = "import os\nfrom IPython.display import HTML, display\ndisplay(HTML(f'<p>{os.getcwd()}</p>'))"
    show += "\nprint(os.path.expanduser('~/x'))"
    widget = (
        "display({'application/vnd.jupyter.widget' + '-view+json': {'model_id': 'a'}, 'text/plain': 'bar'}, raw=True)"
    )
    styled = "import pandas as pd\ndisplay(pd.DataFrame({'a': [1]}).style, pd.DataFrame({'b': [2]}).style)\nobject()"
    path = write_notebook(tmp_path, "01_first", show, widget, styled, "3 + 4")
    reproduce(root=tmp_path, publish=True)
    text = path.read_text()
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for trace in ("papermill", "widget-view", "iopub", "injected", '"kard"', str(tmp_path), str(Path.home())):
        assert trace not in text
    assert "<p>./notebooks</p>" in text and "~/x" in text and "bar" in text
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.source for cell in code] == [PARAMETERS, show, widget, styled, "3 + 4"]
    assert code[0].metadata == {"tags": ["parameters"]} and code[1].metadata == {}
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5] and code[4].outputs[0].execution_count == 5
    assert " at 0x" not in text and "<object>" in text and 'id=\\"T_1\\"' in text and "T_2_row0_col0" in text
    reproduce(root=tmp_path, publish=True)
    cells = nbformat.read(path, as_version=4).cells
    assert [cell | {"id": ""} for cell in cells] == [cell | {"id": ""} for cell in notebook.cells], "twice is the same"


def test_an_injected_cell_that_says_something_else_stays(tmp_path: Path) -> None:
    path = write_notebook(tmp_path, "01_first", parameters=PARAMETERS.replace("embedded", "smoke"))
    reproduce(root=tmp_path, publish=True)
    assert len([cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]) == 2


@pytest.mark.parametrize("dataset", ["world", "obqa"])
def test_publishing_copies_what_was_drawn_and_a_real_dataset_no_notebook(tmp_path: Path, dataset: str) -> None:
    draw = "from pathlib import Path\nfolder = Path(figures_dir)\n"
    draw += "for suffix in ('png', 'pdf', 'csv'):\n    (folder / f'04_{dataset}.{suffix}').write_text(suffix)"
    path = write_notebook(tmp_path, "04_first", draw)
    before = path.read_bytes()
    (tmp_path / "figures").mkdir()
    for name in ("03_old.png", f"04_{dataset}.png"):
        (tmp_path / "figures" / name).write_text("as it was")
    reproduce(dataset=dataset, only=["04"], root=tmp_path)
    assert {file.read_text() for file in (tmp_path / "figures").iterdir()} == {"as it was"}
    (tmp_path / "runs" / f"embedded-{dataset}" / "figures" / "03_stale.png").write_text("drawn by another run")
    reproduce(dataset=dataset, only=["04"], publish=True, root=tmp_path)
    published = {file.name: file.read_text() for file in (tmp_path / "figures").iterdir()}
    assert published == {"03_old.png": "as it was"} | {f"04_{dataset}.{s}": s for s in ("png", "pdf", "csv")}
    assert (path.read_bytes() == before) == (dataset == "obqa")
    if dataset == "obqa":  # a table of pretrained students may have some of its rows
        (tmp_path / "figures" / "04_obqa.csv").unlink()
        some = {"scale": "real", "dataset": "obqa", "overrides": {"methods": ["fine_tuning"]}}
        reproduce(**some, only=["04"], publish=True, root=tmp_path)
        assert (tmp_path / "figures" / "04_obqa.csv").read_text() == "csv"


def test_whatever_is_published_the_scorecard_is_judged_on_all_of_it(tmp_path: Path) -> None:
    draw = "from pathlib import Path\nending = '' if dataset == 'world' else f'_{dataset}'\n"
    draw += "for suffix in ('png', 'pdf', 'csv'):\n    (Path(figures_dir) / f'04_main{ending}.{suffix}').touch()"
    write_notebook(tmp_path, "04_first", draw)
    judge = "from pathlib import Path\nassert not list(Path(figures_dir).glob('*_bad.csv'))\n"
    judge += "print(scale, dataset, *sorted(path.name for path in Path(figures_dir).iterdir()))"
    scorecard = write_notebook(tmp_path, "14_scorecard", judge)
    for name in ("03_hits.csv", "04_main_obqa.csv", "21_worlds_full.csv"):
        (tmp_path / "figures").mkdir(exist_ok=True)
        (tmp_path / "figures" / name).touch()
    reproduce(dataset="strategyqa", only=["04"], publish=True, root=tmp_path)
    assert printed(scorecard) == "embedded world 03_hits.csv\n"
    reproduce(only=["04"], publish=True, root=tmp_path)
    assert printed(scorecard) == "embedded world 03_hits.csv 04_main.csv\n"
    assert (tmp_path / "figures" / "04_main_strategyqa.csv").is_file()
    (tmp_path / "figures" / "05_bad.csv").touch()
    before = scorecard.read_bytes()
    with pytest.raises(ReproduceError, match=r"^what was run is published, but the scorecard is as it was: 14_scorec"):
        reproduce(only=["04"], publish=True, root=tmp_path)
    assert scorecard.read_bytes() == before


@pytest.mark.parametrize("only", [[], ["21"]])
def test_a_full_run_takes_longer_grids_and_replaces_figures_alone(tmp_path: Path, only: list[str]) -> None:
    draw = "from pathlib import Path\nfor suffix in ('png', 'pdf', 'csv'):\n"
    draw += "    (Path(figures_dir) / f'21_worlds_full.{suffix}').write_text(str((worlds, also)))"
    path = write_notebook(tmp_path, "21_other", draw, parameters=f"{PARAMETERS}\nworlds = 2\nalso = []")
    before = path.read_bytes()
    write_notebook(tmp_path, "04_first", "1 / 0")
    if not only:
        write_notebook(tmp_path, "17_grows", "assert len(ailments) > 2", parameters=f"{PARAMETERS}\nailments = []")
    reproduce(root=tmp_path, only=only, full=True, publish=True)
    assert (tmp_path / "figures" / "21_worlds_full.csv").read_text() == str((20, ["10", "shown"]))
    assert path.read_bytes() == before and not (tmp_path / "runs" / "embedded-world").exists()
    assert len([*(tmp_path / "runs" / "embedded-world-full").glob("*.ipynb")]) == (1 if only else 2)


def test_a_full_run_is_of_two_notebooks_and_of_the_closed_world(tmp_path: Path) -> None:
    write_notebook(tmp_path, "04_first")
    write_notebook(tmp_path, "17_grows")
    for asked in ({"only": ["04", "17"]}, {"dataset": "obqa"}):
        with pytest.raises(ReproduceError, match=r"^only notebooks 17 and 21 have a full grid, of the closed world"):
            reproduce(root=tmp_path, full=True, **asked)
    with pytest.raises(ReproduceError, match=r"17_grows\.ipynb has no parameter 'ailments'"):
        reproduce(root=tmp_path, full=True, only=["17"])


def test_a_real_dataset_runs_the_notebooks_that_apply_to_it():
    numbers = [f"{n:02}" for n in range(22)]
    assert all(applies(n, "world") for n in numbers)
    assert [n for n in numbers if not applies(n, "obqa")] == ["00", "13", "15", "16", "17", "18", "19", "21"]
    assert [n for n in numbers if applies(n, "rte")] == ["13", "14", "18"]
    assert applies("15", "own") and not applies("13", "own") and not applies("00", "own")


def test_without_rationales_the_notebooks_that_need_them_are_left_out(tmp_path, capsys):
    for number in ("03", "04"):
        write_notebook(tmp_path, f"{number}_some", "print(1)")
    write_example(tmp_path / "data", "smoke")
    (tmp_path / "data" / "rationales.jsonl").unlink()
    run = reproduce("smoke", "own", str(tmp_path / "data"), root=tmp_path).parent
    assert {path.name for path in run.glob("*.ipynb")} == {"04_some.ipynb"}
    assert (
        "nobody has written rationales for 'own': only answers are learnt, by notebooks 01, 04"
        in capsys.readouterr().out
    )
    reproduce("smoke", "own", str(tmp_path / "data"), only=["03"], root=tmp_path)
    assert (run / "03_some.ipynb").exists()


@pytest.mark.parametrize("gold", [True, False])
def test_without_gold_passages_nobody_asks_why_answers_are_wrong(tmp_path, capsys, gold):
    for number in ("11", "12"):
        write_notebook(tmp_path, f"{number}_some", "print(1)")
    write_example(tmp_path / "data", "smoke")
    if not gold:
        (tmp_path / "data" / "gold.jsonl").unlink()
    run = reproduce("smoke", "own", str(tmp_path / "data"), root=tmp_path).parent
    assert (run / "11_some.ipynb").exists() and (run / "12_some.ipynb").exists() == gold
    said = "no test question of 'own' has gold passages: why answers are wrong (12) is not asked"
    assert (said in capsys.readouterr().out) != gold
