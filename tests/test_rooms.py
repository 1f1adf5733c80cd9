"""The house: a room imports only from rooms above it, the two papers never import each other, and nothing grows fat."""

import ast
import subprocess
from pathlib import Path

import pytest

from tests.folders import ROOT

ROOMS = [
    "errors",
    "registry",
    "knobs",
    "settings",
    "presets",
    "artifacts",
    "data",
    "retrieval",
    "models",
    "kard",
    "reaugkd",
    "report",
    "jobs",
    "work",
    "bundle",
    "packing",
    "reproduce",
    "doctor",
    "__main__",
]
FILES = sorted((ROOT / "kardlib").rglob("*.py"))


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "errors"  # kardlib itself holds the version alone


def read_imports(path: Path) -> set[str]:
    """Every module of kardlib that a file imports, also late and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "kardlib":
            found |= {node.module} if "." in node.module else {f"kardlib.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "kardlib"}
    return {module for module in found if room_of(module) in ROOMS}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_room_imports_from_rooms_above_it_alone(path):
    room = ROOMS.index(room_of(module_of(path)))
    below = {m for m in read_imports(path) if ROOMS.index(room_of(m)) > room}
    assert not below
    papers = {"kard", "reaugkd"}
    if room_of(module_of(path)) in papers:
        assert not {m for m in read_imports(path) if room_of(m) in papers - {room_of(module_of(path))}}


def test_no_two_files_import_each_other():
    imports = {module_of(path): read_imports(path) for path in FILES}

    def reach(module, seen):
        for other in imports.get(module, ()):
            if other not in seen:
                seen.add(other)
                reach(other, seen)
        return seen

    assert not [module for module in imports if module in reach(module, set())]


def test_every_folder_is_a_room():
    folders = {path.name for path in (ROOT / "kardlib").iterdir() if path.is_dir()} - {"nano_models", "__pycache__"}
    assert folders <= set(ROOMS)


AT_THE_ROOT = (
    ".ci .gitignore .pre-commit-config.yaml CITATION.cff CONTRIBUTING.md LICENSE Makefile README.md answers "
    "benchmarks constraints.txt docs environment.yml figures kardlib notebooks pyproject.toml tests"
).split()


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_are_short_and_public_ones_say_what_they_do(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_nothing_strays_at_the_root():
    """A browser's screenshot lay there once."""
    if not (ROOT / ".git").exists():
        pytest.skip("only a checkout knows which files are tracked")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split("/")[0] for line in tracked.splitlines()} <= set(AT_THE_ROOT)
