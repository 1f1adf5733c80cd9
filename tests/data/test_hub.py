"""Readers of the Hub's files on small files of the same formats; downloads at a commit from a server on loopback."""

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pandas as pd
import pytest

from kardlib import NANO
from kardlib.data.files import Question
from kardlib.data.hub import GLUE, HUB, read_openbookqa, read_strategyqa
from kardlib.errors import DataError, StoreError
from kardlib.reaugkd import tasks
from tests.folders import ROOT

OBQA = {"id": "7-980", "question_stem": "The sun is responsible for", "answerKey": "D"}
OBQA |= {"choices": {"text": ["puppies", "children", "flowers", "plants"], "label": ["A", "B", "C", "D"]}}
STRATEGY = {"qid": "b8677742616fef051f00", "term": "T", "question": "Is it so?", "answer": False, "facts": "It is not."}
MEDQA = {"id": "train-00000", "sent1": "What is it?", "sent2": "", "label": 1}
MEDQA |= {f"ending{i}": f"option {i}" for i in range(4)}


def parquet(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(list(rows)).to_parquet(path)
    return path


def test_openbookqa_and_strategyqa(tmp_path):
    options = ("puppies", "children", "flowers", "plants")
    assert read_openbookqa(parquet(tmp_path / "o", OBQA)) == [Question("7-980", OBQA["question_stem"], options, 3)]
    rows = [STRATEGY, STRATEGY | {"qid": "2", "answer": True}]
    assert [q.answer for q in read_strategyqa(parquet(tmp_path / "s", *rows))] == [1, 0]
    assert read_strategyqa(tmp_path / "s")[0] == Question(STRATEGY["qid"], "Is it so?", ("yes", "no"), 1)


def test_files_of_another_kind(tmp_path):
    with pytest.raises(DataError, match="no parquet file with the columns qid, question, answer"):
        read_strategyqa(parquet(tmp_path / "o", OBQA))
    (tmp_path / "text").write_text("no parquet")
    with pytest.raises(DataError, match="no parquet file with the columns id, question_stem") as error:
        read_openbookqa(tmp_path / "text")
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="line 2: the answer 'E' is none of the choices"):
        read_openbookqa(parquet(tmp_path / "o", OBQA, OBQA | {"id": "8", "answerKey": "E"}))
    options = {"text": ["puppies", "children", ""], "label": ["A", "B", "C"]}
    with pytest.raises(DataError, match="line 1: the answer 'C' is none of the choices"):  # it is empty
        read_openbookqa(parquet(tmp_path / "o", OBQA | {"choices": options, "answerKey": "C"}))
    with pytest.raises(DataError, match="line 3: the id '7-980' comes twice"):
        read_openbookqa(parquet(tmp_path / "o", OBQA, OBQA | {"id": "8"}, OBQA))
    with pytest.raises(DataError, match="line 1: the answer is 'false', neither true nor false"):
        read_strategyqa(parquet(tmp_path / "s", STRATEGY | {"answer": "false"}))
    with pytest.raises(DataError, match="line 1: the question has no text"):
        read_strategyqa(parquet(tmp_path / "s", STRATEGY | {"question": " "}))


def test_every_source_is_pinned_by_a_commit():
    assert all(len(bytes.fromhex(source.revision)) == 20 for source in HUB.values())
    assert all({"train", "test"} <= set(source.files) for source in HUB.values())


class Hub(BaseHTTPRequestHandler):
    """Answers what `huggingface_hub` asks for a file: size, commit and checksum first, then the bytes.

    "main" is the commit `main`; all requests are noted in `asked`.
    """

    folder: Path
    main = "a" * 40
    asked: ClassVar[list[str]] = []

    def find(self) -> Path:
        return self.folder / self.path.lstrip("/").partition("?")[0].replace("/resolve/main/", f"/resolve/{self.main}/")

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        file = self.find()
        self.send_response(200 if file.is_file() else 404)
        if file.is_file():
            self.send_header("Content-Length", str(file.stat().st_size))
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("X-Repo-Commit", file.as_posix().split("/resolve/")[-1][:40])
        elif "/resolve/" in self.path:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.find().is_file():
            self.wfile.write(self.find().read_bytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path) -> Iterator[str]:
    Hub.folder, Hub.main = tmp_path / "hub", "a" * 40
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(name: str, endpoint: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = f"from kardlib.data.hub import read_hub; data = read_hub('{name}'); "
    code += "print({split: [q.id for q in questions] for split, questions in data.splits.items()}, data.passages)"
    return run(code, endpoint, tmp_path)


def run(code: str, endpoint: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the Hub's address is read when it starts."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_name_without_a_folder_is_fetched_at_its_revision(hub, tmp_path):
    for name, row in (("medqa_usmle_hf", MEDQA), ("obqa", OBQA)):
        source = HUB[name]
        for split, file in source.files.items():
            path = tmp_path / "hub" / "datasets" / source.repository / "resolve" / source.revision / file
            if name == "obqa":
                parquet(path, row | {"id": f"{split}0"}, row | {"id": f"{split}1"})
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(row | {"id": f"{split}{i}"}) + "\n" for i in range(2)))
        done = fetch(name, hub, tmp_path)
        ids = {split: [f"{split}0", f"{split}1"] for split in ("train", "dev", "test")}
        assert done.stdout.strip() == f"{ids} []", done.stderr


def test_a_hub_that_does_not_answer_or_has_no_such_file(hub, tmp_path):
    for endpoint in (hub, "http://127.0.0.1:9"):
        said = fetch("obqa", endpoint, tmp_path).stderr.strip().splitlines()[-1]
        assert "main/train-00000-of-00001.parquet of allenai/openbookqa could not be fetched" in said
        assert said.endswith("check the network, or set data_dir to the folder that holds KARD's release")


READ_RTE = "from kardlib.reaugkd.tasks import read_hub_glue; print(*(examples for examples in read_hub_glue('rte')))"


def offer_rte(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "datasets" / GLUE[0] / "resolve" / GLUE[1] / "rte"
    for split, label in (("train", 1), ("validation", 0)):
        row = {"sentence1": f"{split} 1", "sentence2": f"{split} 2", "label": label, "idx": 0}
        parquet(folder / f"{split}-00000-of-00001.parquet", row)


def test_a_glue_task_is_fetched_at_its_revision_and_then_needs_no_network(hub, tmp_path):
    offer_rte(tmp_path)
    for endpoint in (hub, "http://127.0.0.1:9"):
        done = run(READ_RTE, endpoint, tmp_path)
        assert "RawExample(text='train 1', pair='train 2', label='1'" in done.stdout, done.stderr
        assert "RawExample(text='validation 1', pair='validation 2', label='0'" in done.stdout


def test_a_glue_task_that_the_hub_has_not(hub, tmp_path):
    said = run(READ_RTE, hub, tmp_path).stderr.strip().splitlines()[-1]
    assert "rte/train-00000-of-00001.parquet of nyu-mll/glue could not be fetched" in said
    assert said.endswith("or set data_dir to the folder that holds glue/RTE/")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a device that is always full")
def test_a_full_disk_is_no_lack_of_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: Path("/dev/full").write_text("x" * 100_000))
    with pytest.raises(StoreError, match=r"^the disk that holds .* is full: free some space"):
        tasks.read_hub_glue("rte")


LOAD = """
from kardlib.models.catalogue import identify
from kardlib.kard.student import load_student
print(identify("someone/model"))
print(load_student("someone/model")[0].num_parameters())
"""


def publish() -> None:
    """What the Hub's API says of the model: that there is one."""
    file = Hub.folder / "api" / "models" / "someone" / "model"
    file.parent.mkdir(parents=True)
    file.write_text('{"id": "someone/model"}')


def test_a_model_without_a_pin_is_taken_at_the_commit_of_its_first_use(hub, tmp_path):
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(NANO / "t5-nano-small", Hub.folder / "someone" / "model" / "resolve" / commit)
    publish()
    first = run(LOAD, hub, tmp_path).stdout.splitlines()
    assert first[:2] == [f"someone/model is taken at the commit {Hub.main}", f"someone/model@{Hub.main}"]
    assert not any("resolve/main" in path for path in Hub.asked if not path.endswith("config.json"))
    Hub.main = "b" * 40
    assert run(LOAD, hub, tmp_path).stdout.splitlines() == first[1:]  # and the same weights


def test_a_model_without_safetensors_is_refused_and_nobody_is_asked_to_convert_it(hub, tmp_path):
    folder = Hub.folder / "someone" / "model" / "resolve" / Hub.main
    shutil.copytree(NANO / "t5-nano-small", folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    publish()
    said = run(LOAD, hub, tmp_path).stderr.strip().splitlines()[-1]
    assert f"its commit {Hub.main} has no safetensors, and nothing else is loaded: convert it once with" in said
    command = said.partition("python -c ")[2].partition(" (it reads")[0]
    ast.parse(shlex.split(command)[0])
    assert "AutoModelForSeq2SeqLM" in command and f"revision='{Hub.main}'" in command
    assert not any("pytorch_model.bin" in path or "discussions" in path for path in Hub.asked)


def test_a_hub_out_of_reach_is_said_at_once(tmp_path):
    said = run(LOAD, "http://127.0.0.1:9", tmp_path).stderr.strip().splitlines()[-1]
    assert "the Hub has no model 'someone/model', or is out of reach" in said


def test_a_model_of_the_hub_is_carried_in_a_bundle(hub, tmp_path):
    folder = Hub.folder / "someone" / "model" / "resolve" / Hub.main
    shutil.copytree(NANO / "t5-nano-small", folder)
    (folder / "rust_model.ot").write_bytes(b"not read by anyone")
    listed = Hub.folder / "api" / "models" / "someone" / "model" / "tree" / Hub.main
    listed.parent.mkdir(parents=True)
    files = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in folder.iterdir()]
    listed.write_text(json.dumps(files))
    code = f"from pathlib import Path; from kardlib.bundle import Packed; folder = Path({str(tmp_path)!r}); "
    code += "packed = Packed(folder, True, {}, {});"
    done = run(f"{code} print(packed.add_model('someone/model', {Hub.main!r}), packed.models)", hub, tmp_path)
    name = f"someone--model-{Hub.main[:8]}"  # another revision is another model
    named = {name: {"hub": "someone/model", "sha256": ""}}
    assert done.stdout.splitlines()[-1] == f"{(name, Hub.main)} {named}", done.stderr
    carried = {path.name for path in (tmp_path / "models" / name).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= carried and "rust_model.ot" not in carried
    done = run(f"{code} packed.add_model('someone/other', {Hub.main!r})", hub, tmp_path)
    assert "BundleError: the Hub does not give someone/other" in done.stderr.splitlines()[-1]
