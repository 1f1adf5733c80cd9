import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kardlib import REPOSITORY
from kardlib.__main__ import main, parse_setting
from kardlib.report.rows import COLUMNS
from kardlib.settings import SettingsError


def kard(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kardlib", *arguments], cwd=REPOSITORY, capture_output=True, text=True)


def test_doctor_finds_this_machine_fit() -> None:
    run = kard("doctor")
    assert run.returncode == 0, run.stdout + run.stderr
    for line in ("python 3.", "java: ", "device: ", "disk: ", "nano models: "):
        assert f"\n{line}" in f"\n{run.stdout}"
    assert "everything that the embedded scale needs is here" in run.stdout


def test_doctor_says_what_is_wrong_and_how_to_mend_it(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["no-such-package>=2", "numpy<1", "psutil"]')
    monkeypatch.setattr("kardlib.doctor.REPOSITORY", tmp_path)
    monkeypatch.setattr("kardlib.doctor.NEEDED_DISK", 10**18)
    assert main(["doctor"]) == 1
    found, _, problems = capsys.readouterr().out.partition("would not work:")
    assert "no-such-package is missing (needed: >=2)" in found and "psutil" in found
    assert "no-such-package is missing: run pip install 'no-such-package>=2'" in problems
    assert "run pip install 'numpy<1'" in problems and "psutil" not in problems
    assert "set KARD_STORE to a folder on another disk" in problems


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--set", "retrieval.kk=1"], "there is no setting 'retrieval.kk'"),
        (["--set", "retrieval.k=200"], "200"),
        (["--set", "retrieval.k"], "--set retrieval.k has no value: write --set retrieval.k=VALUE"),
        (["--data-dir", "nowhere"], "data_dir is not read with the dataset world: name your data's dataset"),
        (["--dataset", "obqa", "--data-dir", "nowhere"], "there is no folder nowhere: correct --data-dir"),
        (["--only", "77"], "there is no notebook"),
        (["--set", "seeds=[true]"], "kard: seeds should be a list without true and false"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kard: ") and said in err and err.count("\n") == 1


def test_claims_are_printed_with_their_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = "04_main,world,embedded,test,kard_reranker,t5-nano-base,,3,,,"
    row = f"{where},accuracy,reasoning_distillation,,,,0.2,0.1,0.3,"
    (tmp_path / "04_main.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    assert main(["claims", "--figures", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "✓ reproduced: world, embedded, t5-nano-base" in out and "1 reproduced; " in out.splitlines()[-1]
    assert main(["claims", "--figures", str(tmp_path), "--json"]) == 0
    verdicts = [line["verdict"] for line in json.loads(capsys.readouterr().out)]
    assert verdicts.count("reproduced") == 1 and len(verdicts) > 20
    assert main(["claims"]) == 0  # what is committed under figures/


def test_claims_count_what_is_published_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of other data or settings has a scorecard of its own, which `--figures` asks for."""
    rows = {"figures": "world,embedded", "runs/embedded-own-mine-1/figures": "own,embedded"}
    for name, where in rows.items():
        (tmp_path / name).mkdir(parents=True)
        row = f"04_main,{where},test,kard_reranker,t5-nano-base,,3,,,,accuracy,reasoning_distillation,,,,0.2,0.1,0.3,"
        (tmp_path / name / "04_main.csv").write_text(f"{','.join(COLUMNS)}\n{row}\n")
    monkeypatch.setattr("kardlib.__main__.REPOSITORY", tmp_path)
    assert main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "world, embedded" in out and "own, embedded" not in out


def test_claims_of_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", "--figures", "nowhere"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("kard: there is no folder nowhere") and err.count("\n") == 1


def test_the_exit_code_reaches_the_shell_without_a_traceback() -> None:
    run = kard("reproduce", "--set", "retrieval.k")
    assert run.returncode == 2 and run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "shell", "code"),
    [
        ("claims --json", "| head -n 1", 141),
        ("--help", "| true", 141),
        ("claims --json", ">&-", 0),
        ("--help", ">&- 2>&-", 0),
        ("claims --json", "> /dev/full", 2),
    ],
)
def test_output_that_nobody_takes_is_no_traceback(command: str, shell: str, code: int) -> None:
    line = f"(sleep 0.1; exec {sys.executable} -m kardlib {command}) {shell}; exit ${{PIPESTATUS[0]}}"
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    run = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert run.returncode == code and "Traceback" not in run.stderr and "Exception" not in run.stderr
    assert run.stderr.startswith("kard: the disk ") if code == 2 else run.stderr == ""


def test_an_unknown_option_or_scale_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["reproduce", "--scale", "huge"], ["reproduce", "--smoke"], ["repro"], []):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 2 and "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, setting",
    [
        ("retrieval.k=1", ("retrieval.k", 1)),
        ("teacher.correct_only=false", ("teacher.correct_only", False)),
        ("seeds=[0, 1]", ("seeds", [0, 1])),
        ("student.model=google/flan-t5-base", ("student.model", "google/flan-t5-base")),
        ("student.revision=null", ("student.revision", None)),
        ("student.model=a=b", ("student.model", "a=b")),
    ],
)
def test_settings_are_read_as_json_or_text(text: str, setting: tuple[str, object]) -> None:
    assert parse_setting(text) == setting


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["reproduce", "--only", ""], "it names no notebook"),
        (["reproduce", "--only", ","], "it names no notebook"),
        (["bundle", "out", "--only", ""], "it names no notebook"),
        (["reproduce", "--jobs", "0"], "'0' is no number from 1 on"),
        (["reproduce", "--jobs", "-3"], "'-3' is no number from 1 on"),
        (["table"], "required: FIGURE"),
    ],
)
def test_an_option_without_a_use_is_refused(arguments, said, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["unbundle", "file"], "there is no bundle in file"),
        (["bundle", "file", "--only", "04", "--scale", "smoke"], "file is a file: name a new folder"),
        (["table", "04", "--figures", "drawn"], "is not a figure's data"),
        (["claims", "--figures", "drawn"], "is not a figure's data"),
        (["figure", "08_candidates", "--to", "file"], "file"),
        (["plan", "--dataset", "rte", "--data-dir", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_files_in_the_place_of_folders_and_empty_ones_are_one_sentence(
    arguments, said, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "04_main.csv").write_text("")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("kard: ") and said in error and error.count("\n") == 1


def test_doctor_says_where_the_store_is_no_folder(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "file"))
    assert main(["doctor"]) == 1
    assert "is no folder that can be written: set KARD_STORE" in capsys.readouterr().out


def test_a_setting_without_value_is_an_error() -> None:
    with pytest.raises(SettingsError, match="has no value"):
        parse_setting("retrieval.k")
