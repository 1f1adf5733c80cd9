"""Beside every kind's recipe, tests/recipes.json keeps a hash of the code that makes it: neither changes unnoticed.

python -m tests.test_recipes writes the file anew, after a change of code or of a recipe.
"""

import ast
import functools
import hashlib
import importlib
import json

import pytest

from kardlib.artifacts.store import Kind
from tests.folders import ROOT

KEPT = ROOT / "tests" / "recipes.json"
FILES = sorted((ROOT / "kardlib").rglob("*.py"))
SOURCES = {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text("utf-8") for file in FILES}
KEEPERS = ("disk", "provenance", "store", "engine", "launch")  # they keep what others make
STORING = {f"kardlib.artifacts.{name}" for name in KEEPERS}
SILENT = {"annotation", "returns", "type_comment", "type_params", "kind"}  # parts of the syntax that change nothing
RERANKER, STUDENT = ("kardlib.kard.reranker", "train_reranker"), ("kardlib.kard.student", "train_student")


@functools.cache
def read_names(text):
    """Name at the top of a file, or "Class.method" -> what defines it, or (module, name) if it is imported."""
    names = find_imports(body := ast.parse(text).body)
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
            names |= {f"{node.name}.{m.name}": m for m in node.body if isinstance(m, ast.FunctionDef)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id: node for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        elif isinstance(node, ast.If):
            names["__main__"] = node  # of a file that is run in a process of its own
    return names


def find_imports(nodes):
    found = [(node.module, alias) for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names]
    return {alias.asname or alias.name: (module, alias.name) for module, alias in found}


def shape(node, named):
    """A syntax tree as lists, without what makes nothing: docstrings, annotations, imports, prints, what is raised.

    `named` collects the names in it, also those of other modules, and modules that are run by their name.
    """
    if isinstance(node, list):
        said = [n for n in node if isinstance(n, ast.Expr) and ast.unparse(n.value).startswith(("print(", "'", '"'))]
        return [shape(n, named) for n in node if n not in said and not isinstance(n, ast.Import | ast.ImportFrom)]
    if isinstance(node, ast.Raise) or not isinstance(node, ast.AST):
        return "raise" if isinstance(node, ast.Raise) else repr(node)
    if isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        named.add(ast.unparse(node))
    if isinstance(node, ast.Constant) and node.value in SOURCES:
        named.add(f"{node.value}.__main__")
        return "module"
    parts = {n: v for n, v in ast.iter_fields(node) if n not in SILENT and v is not None and v != []}
    return [type(node).__name__, *([name, shape(part, named)] for name, part in parts.items())]


def hash_code(makers, sources):
    """Of all functions, classes and constants of kardlib that the makers reach by name, wherever they stand."""
    tables = {module: read_names(text) for module, text in sources.items() if module not in STORING}
    todo, seen, shapes = list(makers), set(), set()
    while todo:
        module, name = todo.pop()
        found = tables.get(module, {}).get(name)
        if found is None or (module, name) in seen:
            continue
        seen.add((module, name))
        if isinstance(found, tuple):
            todo.append(found)
            continue
        form, imported = json.dumps(shape(found, named := set())), find_imports(ast.walk(found))  # late ones
        if not (isinstance(found, ast.Assign) and "Kind" in named):  # a kind's name and recipe are no code
            shapes.add(form)
            for head, _, name in (n.rpartition(".") for n in named):
                of_module = imported.get(head) or tables[module].get(head)
                of_module = ".".join(of_module) if isinstance(of_module, tuple) else head
                todo.append((of_module, name) if head else imported.get(name, (module, name)))
    return hashlib.sha256(json.dumps(sorted(shapes)).encode()).hexdigest()[:16]


def find_makers(module, constant):
    """Of a kind without builder: who names it in its file, and the methods that it is handed to."""
    for name, node in read_names(SOURCES[module]).items():
        if isinstance(node, ast.FunctionDef) and constant in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}:
            yield module, name
            for call in (n for n in ast.walk(node) if isinstance(n, ast.Call) and n.args):
                if ast.unparse(call.args[0]) == constant:
                    yield module, ast.unparse(call.func).replace("self", name.partition(".")[0])


def describe():
    """By kind its recipe and the hash of the code that makes it."""
    kinds = {}
    for module, text in SOURCES.items():
        for constant, kind in vars(importlib.import_module(module)).items():
            if isinstance(kind, Kind) and isinstance(read_names(text).get(constant), ast.Assign):
                makers = [tuple(kind.builder.split(":"))] if kind.builder else find_makers(module, constant)
                kinds[kind.name] = {"recipe": kind.recipe, "code": hash_code(makers, SOURCES)}
    return kinds


def test_code_and_recipe_change_together():
    kept, found = json.loads(KEPT.read_text()), describe()
    changed = sorted(name for name in kept.keys() | found.keys() if kept.get(name) != found.get(name))
    assert not changed, (
        f"tests/recipes.json knows other code or another recipe of {', '.join(changed)}: where results change, raise "
        "the kind's recipe; then run python -m tests.test_recipes"
    )
    assert len(found) > 15 and hash_code([], SOURCES) not in {kind["code"] for kind in found.values()}


@pytest.mark.parametrize(
    "old, new, changes",
    [
        ("(log_q.exp() * (log_q - log_p))", "(log_q.exp() * (log_p - log_q))", True),  # the body of kl_loss
        ("Mean `KL(Q || P)` over rationales;", "The mean over rationales;", False),  # its docstring
        ("kardlib.models.encoders", "kardlib.models.moved", False),  # a file and who imports from it
    ],
)
def test_what_changes_a_hash(old, new, changes):
    edited = {module.replace(old, new): text.replace(old, new) for module, text in SOURCES.items()}
    assert edited != SOURCES and (hash_code([RERANKER], edited) != hash_code([RERANKER], SOURCES)) == changes
    assert hash_code([STUDENT], edited) == hash_code([STUDENT], SOURCES)


if __name__ == "__main__":
    KEPT.write_text(json.dumps(describe(), indent=2, sort_keys=True) + "\n")
