import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from kardlib import REPOSITORY
from kardlib.artifacts.provenance import provenance


def test_provenance_names_no_place_and_nobody() -> None:
    origin = provenance(settings={"lr": 0.1})
    assert origin["settings"] == {"lr": 0.1} and origin["device"]
    assert {"python", "kardlib", "torch", "transformers", "pyserini"} <= set(origin["versions"])
    text = json.dumps(provenance())
    for secret in (str(REPOSITORY), str(Path.home()), sys.prefix, os.uname().nodename):
        assert secret not in text
    assert "settings" not in provenance()


def test_provenance_knows_the_commit_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import json, sys; from kardlib.artifacts.provenance import provenance; text = json.dumps(provenance());"
        "assert not {'torch', 'transformers', 'pyserini'} & set(sys.modules); print(text)"
    )

    def ask() -> dict[str, object]:
        return dict(json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)))

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        return subprocess.check_output(["git", *identity, *arguments], cwd=tmp_path, text=True).strip()

    shutil.copytree(
        REPOSITORY / "kardlib",
        tmp_path / "kardlib",
        ignore=lambda folder, names: [n for n in names if Path(folder, n).is_file() and not n.endswith(".py")],
    )
    assert "commit" not in ask() and "dirty" not in ask()
    git("init", "--quiet")
    assert "commit" not in ask()
    (tmp_path / ".gitignore").write_text("__pycache__\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "all")
    assert ask()["commit"] == git("rev-parse", "HEAD") and ask()["dirty"] is False
    (tmp_path / "figure.png").touch()
    assert ask()["dirty"] is False
    (tmp_path / "kardlib" / "settings.py").write_text("changed")
    assert ask()["dirty"] is True
