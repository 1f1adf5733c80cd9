import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kardlib import REPOSITORY
from kardlib.artifacts.disk import UNFINISHED, atomic_write
from kardlib.artifacts.provenance import now
from kardlib.artifacts.store import MANIFEST, Kind, Store, artifact_name, locked
from kardlib.errors import StoreError, TooLargeError
from kardlib.kard import pipeline, rankings
from kardlib.kard.experiment import PREDICTIONS
from kardlib.reaugkd import experiment as reaugkd

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
SPECS = st.dictionaries(st.text(), JSON, max_size=4)


def write_model(folder: Path) -> None:
    (folder / "weights").mkdir(exist_ok=True)
    (folder / "weights" / "a.bin").write_bytes(b"12345")
    (folder / "config.json").write_text("{}")


def refuse(folder: Path) -> None:
    raise AssertionError("built although it is there")


def refuse_after_a_file(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    (folder / "half").write_text("half")
    raise RuntimeError("killed")


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs `code`, which finds `arguments` in sys.argv[1:]."""
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{code}", *map(str, arguments)]
    return subprocess.Popen(command, cwd=REPOSITORY, text=True, stdout=subprocess.PIPE)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, f"{path} never appeared"
        time.sleep(0.02)


def test_builds_once_and_is_found_again(tmp_path: Path) -> None:
    spec = {"lr": 0.1, "seeds": (0, 1)}
    assert not Store(tmp_path).has(Kind("model"), spec)
    folder = Store(tmp_path).make(Kind("model"), spec, write_model)
    assert folder.name == artifact_name(Kind("model"), spec) and folder.parent == tmp_path
    assert Store(tmp_path).has(Kind("model"), spec)
    assert Store(tmp_path).make(Kind("model"), {"seeds": [0, 1], "lr": 0.1}, refuse) == folder
    assert Store(tmp_path).make(Kind("model"), {"lr": 0.2}, write_model) != folder


def test_manifest_says_what_made_it(tmp_path: Path) -> None:
    manifest = json.loads((Store(tmp_path).make(Kind("model"), {"lr": 0.1}, write_model) / MANIFEST).read_text())
    assert manifest["kind"] == "model" and manifest["spec"] == {"lr": 0.1} and not manifest["resumed"]
    assert manifest["seconds"] >= 0
    assert manifest["files"] == {
        "config.json": {"bytes": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
        "weights/a.bin": {"bytes": 5, "sha256": "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"},
    }


def test_checkpoints_are_deleted_before_publishing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "checkpoints" / "step-1").mkdir(parents=True)
        (folder / "checkpoints" / "step-1" / "state").write_text("...")
        write_model(folder)

    assert not (Store(tmp_path).make(Kind("model"), {}, build) / "checkpoints").exists()


@given(SPECS, SPECS)
def test_names_tell_specs_apart_and_fit_any_file_system(one: dict[str, object], other: dict[str, object]) -> None:
    name = artifact_name(Kind("kind"), one)
    assert name.removeprefix("kind-").isalnum() and len(name) < 64
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (name == artifact_name(Kind("kind"), other)) == same


@pytest.mark.parametrize("value", [Path("x"), {1, 2}, float("nan"), b"x"])
def test_a_spec_that_is_no_json_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(StoreError, match="the spec of a 'model' artifact must hold plain JSON values only"):
        Store(tmp_path).make(Kind("model"), {"x": value}, refuse)


def delete_file(folder: Path) -> None:
    (folder / "config.json").unlink()


def change_file(folder: Path) -> None:
    (folder / "weights" / "a.bin").write_bytes(b"12845")


def tear_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"files": {')


def list_no_file(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": {}}))


def damage_behind_a_link(folder: Path) -> None:
    change_file(folder)
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def put_a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


@pytest.mark.parametrize(
    "damage, said",
    [
        (list_no_file, "it holds no file"),
        (damage_behind_a_link, "its file weights/a.bin has changed"),
        (put_a_file_in_its_place, f"its {MANIFEST} cannot be read"),
        (delete_file, "its file config.json is missing"),
        (change_file, "its file weights/a.bin has changed"),
        (tear_manifest, f"its {MANIFEST} cannot be read"),
    ],
)
@pytest.mark.parametrize("fresh", [True, False])
def test_a_damaged_artifact_is_built_again(tmp_path: Path, capsys, damage, said: str, fresh: bool) -> None:
    store = Store(tmp_path)
    folder = store.make(Kind("model"), {}, write_model)
    damage(folder)
    store = Store(tmp_path) if fresh else store
    assert not store.has(Kind("model"), {})
    assert store.make(Kind("model"), {}, write_model) == folder
    assert capsys.readouterr().out.splitlines() == [f"artifact {folder.name} is built again: {said}"]
    assert (folder / "weights" / "a.bin").read_bytes() == b"12345"
    assert Store(tmp_path).make(Kind("model"), {}, refuse) == folder


SLOW_BUILD = """
import time
from kardlib.artifacts.store import Kind, Store
from kardlib.artifacts.disk import atomic_write
def build(folder):
    with (folder / "log").open("a") as log:
        print("begun", file=log)
    for step in range(3):
        if not (folder / f"{step}.txt").exists():
            with atomic_write(folder / f"{step}.txt") as temporary:
                temporary.write_text(f"step {step}")
                if step == int(sys.argv[2]):
                    Path(sys.argv[3]).touch()
                    while not Path(sys.argv[3] + ".go").exists():
                        time.sleep(0.02)
print(Store(sys.argv[1]).make(Kind("slow"), {}, build).name)
"""


def test_a_build_killed_while_writing_goes_on(tmp_path: Path) -> None:
    root, mark = tmp_path / "store", tmp_path / "mark"
    killed = start(SLOW_BUILD, root, 1, mark)
    wait_for(mark)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    name = artifact_name(Kind("slow"), {})
    partial = root / f"{name}.partial"
    assert not (root / name).exists() and (partial / "0.txt").exists() and not (partial / "1.txt").exists()
    assert list(partial.glob(f"{UNFINISHED}*")), "the kill came too late to test anything"
    kept = (partial / "0.txt").stat().st_mtime_ns

    again = start(SLOW_BUILD, root, -1, mark)
    assert again.communicate()[0].split() == [name] and not partial.exists()
    manifest = json.loads((root / name / MANIFEST).read_text())
    assert sorted(manifest["files"]) == ["0.txt", "1.txt", "2.txt", "log"] and manifest["resumed"]
    assert (root / name / "0.txt").stat().st_mtime_ns == kept
    assert [(root / name / f"{step}.txt").read_text() for step in range(3)] == ["step 0", "step 1", "step 2"]


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    name, mark = artifact_name(Kind("slow"), {}), tmp_path / "mark"
    first = start(SLOW_BUILD, tmp_path, 1, mark)
    wait_for(mark)
    second = start(SLOW_BUILD, tmp_path, -1, mark)
    assert second.stdout.readline() == f"waiting for another process that builds {name}\n"
    Path(f"{mark}.go").touch()
    assert [process.communicate()[0] for process in (first, second)] == [f"{name}\n"] * 2
    assert (tmp_path / name / "log").read_text() == "begun\n"


def test_what_another_machine_made_is_taken_whole_and_replaces_nothing_finished(tmp_path: Path) -> None:
    store, kind, made = Store(tmp_path / "store"), Kind("model"), {"seconds": 7.5, "provenance": {"device": "there"}}
    with pytest.raises(RuntimeError):
        store.make(kind, {"seed": 0}, refuse_after_a_file)
    (tmp_path / "losses").write_text("1, 2")
    folder = store.take(kind, {"seed": 0}, {"losses": tmp_path / "losses", "hash": b"ab"}, made)
    manifest = json.loads((folder / "artifact.json").read_text())
    assert manifest["provenance"] == {"device": "there"} and manifest["seconds"] == 7.5
    assert {path.name for path in folder.iterdir()} == {"losses", "hash", "artifact.json"}
    assert store.make(kind, {"seed": 0}, refuse) == folder
    assert store.take(kind, {"seed": 0}, {"hash": b"other"}, made) == folder and (folder / "hash").read_text() == "ab"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a device that is always full")
def test_a_full_disk_is_one_sentence_and_what_is_there_stays(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "first").write_text("kept")
        Path("/dev/full").write_text("x" * 100_000)

    with pytest.raises(StoreError, match=r"^the disk that holds .* is full: free some space and run .* again"):
        Store(tmp_path).make(Kind("model"), {}, build)
    assert (tmp_path / f"{artifact_name(Kind('model'), {})}.partial" / "first").read_text() == "kept"
    assert not Store(tmp_path).has(Kind("model"), {})
    with pytest.raises(StoreError, match="is full"), atomic_write(tmp_path / "file.txt"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    Store(tmp_path).make(Kind("model"), {}, write_model)


def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot write to .*: set KARD_STORE to a folder that you own"):
        Store(tmp_path / "file" / "store").make(Kind("model"), {}, write_model)


def test_an_error_of_the_build_is_passed_on_and_frees_the_lock(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).make(Kind("model"), {}, fail)
    assert Store(tmp_path).make(Kind("model"), {}, write_model).exists()


def test_force_builds_once_more_and_drops_old_partial_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "old").touch()
        raise ZeroDivisionError

    folder = Store(tmp_path).make(Kind("model"), {}, write_model)
    began = json.loads((folder / MANIFEST).read_text())["began"]
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).make(Kind("other"), {}, fail)
    monkeypatch.setenv("KARD_FORCE", now())
    with pytest.raises(ZeroDivisionError):
        Store(tmp_path).make(Kind("model"), {}, fail)
    assert (folder / "config.json").exists(), "the old one stays until the new one is finished"
    assert Store(tmp_path).make(Kind("model"), {}, write_model) == folder
    assert json.loads((folder / MANIFEST).read_text())["began"] > began
    assert Store(tmp_path).make(Kind("model"), {}, refuse) == folder
    assert not (Store(tmp_path).make(Kind("other"), {}, write_model) / "old").exists()


def test_what_a_killed_force_began_is_removed_unless_another_builds_it(tmp_path, monkeypatch) -> None:
    folder = Store(tmp_path).make(Kind("model"), {}, write_model)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir()
    with locked(tmp_path, folder.name):
        Store(tmp_path).make(Kind("model"), {}, refuse)
        assert partial.exists()
    assert Store(tmp_path).make(Kind("model"), {}, refuse) == folder and not partial.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a device that is always full")
def test_a_disk_that_fills_while_torch_saves_is_the_same_sentence(tmp_path) -> None:
    def build(folder: Path) -> None:
        torch.save(torch.zeros(1_000_000), "/dev/full")

    with pytest.raises(StoreError, match=r"^the disk that holds .* is full: free some space"):
        Store(tmp_path).make(Kind("model"), {}, build)


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KARD_STORE", str(tmp_path))
    assert Store().root == tmp_path
    monkeypatch.delenv("KARD_STORE")
    assert Store().root == REPOSITORY / "artifacts"


@pytest.fixture(params=["file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place that two machines share; `machine` makes a store with a working copy of its own."""
    return f"file://{tmp_path}/shared" if request.param == "file" else f"memory://{tmp_path.name}"


def machine(name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("KARD_CACHE", str(tmp_path / name))
    return Store(url)


def test_what_one_machine_made_another_fetches(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (machine(name, url, tmp_path, monkeypatch) for name in ("one", "other"))
    assert not other.has(Kind("model"), {}) and other.specs(Kind("model")) == []
    made = one.make(Kind("model"), {}, write_model)
    assert (
        other.specs(Kind("model")) == one.specs(Kind("model")) == [{}] and not (tmp_path / "other" / made.name).exists()
    )
    assert made.parent == tmp_path / "one" and other.has(Kind("model"), {})
    fetched = other.make(Kind("model"), {}, refuse)
    assert fetched == tmp_path / "other" / made.name and not list(fetched.parent.glob("*.fetched"))
    assert (fetched / "weights" / "a.bin").read_bytes() == b"12345"
    assert (fetched / MANIFEST).read_bytes() == (made / MANIFEST).read_bytes()
    assert other.find("model-0") is None


def test_what_was_made_before_there_was_a_url_is_uploaded_when_asked_for(url, tmp_path, monkeypatch) -> None:
    Store(tmp_path / "one").make(Kind("model"), {}, write_model)
    machine("one", url, tmp_path, monkeypatch).make(Kind("model"), {}, refuse)
    assert machine("other", url, tmp_path, monkeypatch).has(Kind("model"), {})


def remote_files(url: str) -> tuple[Any, str]:
    return fsspec.core.url_to_fs(f"{url}/{artifact_name(Kind('model'), {})}")


def test_an_upload_that_was_killed_is_not_seen(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come first and the manifest last: without it they are nothing, and the next upload replaces them."""
    one, other = (machine(name, url, tmp_path, monkeypatch) for name in ("one", "other"))
    one.make(Kind("model"), {}, write_model)
    remote, place = remote_files(url)
    for torn in (b"", b'{"files": {'):
        remote.pipe_file(f"{place}/{MANIFEST}", torn)
        assert not other.has(Kind("model"), {})
    remote.rm_file(f"{place}/{MANIFEST}")
    remote.pipe_file(f"{place}/config.json", b"half")
    assert not other.has(Kind("model"), {})
    machine("one", url, tmp_path, monkeypatch).make(Kind("model"), {}, refuse)
    assert (other.make(Kind("model"), {}, refuse) / "config.json").read_text() == "{}"


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_copy_at_the_url_is_built_again_and_replaced(url, damage, tmp_path, monkeypatch, capsys) -> None:
    one, other, third = (machine(name, url, tmp_path, monkeypatch) for name in ("one", "other", "third"))
    name = one.make(Kind("model"), {}, write_model).name
    remote, place = remote_files(url)
    if damage == "changed":
        remote.pipe_file(f"{place}/weights/a.bin", b"12845")
    else:
        remote.rm_file(f"{place}/weights/a.bin")
    other.make(Kind("model"), {}, write_model)
    said = f"artifact {name} at {url} is replaced: its file weights/a.bin "
    assert capsys.readouterr().out.startswith(said + ("has changed" if damage == "changed" else "is missing"))
    assert (third.make(Kind("model"), {}, refuse) / "weights" / "a.bin").read_bytes() == b"12345"


def test_force_replaces_what_is_at_the_url(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_other(folder: Path) -> None:
        (folder / "config.json").write_text("[]")

    one, other, third = (machine(name, url, tmp_path, monkeypatch) for name in ("one", "other", "third"))
    one.make(Kind("model"), {}, write_model)
    monkeypatch.setenv("KARD_FORCE", now())
    assert not other.has(Kind("model"), {})
    other.make(Kind("model"), {}, write_other)
    assert (third.make(Kind("model"), {}, refuse) / "config.json").read_text() == "[]"
    assert (one.make(Kind("model"), {}, refuse) / "config.json").read_text() == "[]", "its own is older"


def test_an_artifact_at_a_url_stays_in_its_folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (machine(name, url, tmp_path, monkeypatch) for name in ("one", "other"))
    one.make(Kind("model"), {}, write_model)
    remote, place = remote_files(url)
    manifest = json.loads(remote.cat_file(f"{place}/{MANIFEST}"))
    for file in ("../../escaped", "/escaped", "weights/../../escaped"):
        remote.pipe_file(f"{place}/{MANIFEST}", json.dumps(manifest | {"files": {file: {}}}).encode())
        with pytest.raises(StoreError, match="has files outside its own folder: do not trust that store"):
            other.has(Kind("model"), {})


@pytest.mark.parametrize(
    "url, said",
    [
        ("nonsense://bucket", r"the store nonsense://bucket cannot be used \(ValueError: Protocol not known: nonsense"),
        ("ftp://me:secret@127.0.0.1:9/kard", r"the store ftp://127.0.0.1:9/kard cannot be used \(ConnectionRefused"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence(url, said, tmp_path, monkeypatch) -> None:
    store = machine("one", url, tmp_path, monkeypatch)
    with pytest.raises(StoreError, match=rf"^{said}.*: correct KARD_STORE, or mend the credentials or the network"):
        store.make(Kind("model"), {}, write_model)


def test_what_is_made_is_kept_when_the_upload_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").write_text("a file where the folder should be")
    url = f"file://{tmp_path}/shared"
    with pytest.raises(
        StoreError, match=r"shared cannot be used \((NotADirectory|FileExists)Error: .*is finished is kept"
    ):
        machine("one", url, tmp_path, monkeypatch).make(Kind("model"), {}, write_model)
    (tmp_path / "shared").unlink()
    machine("one", url, tmp_path, monkeypatch).make(Kind("model"), {}, write_model)
    assert machine("other", url, tmp_path, monkeypatch).has(Kind("model"), {})


@pytest.mark.parametrize(
    "kind", [pipeline.STUDENT, pipeline.ADAPTED, rankings.RERANKER, rankings.DENSE, PREDICTIONS, reaugkd.TEACHER]
)
def test_what_does_not_fit_into_the_gpu_is_one_sentence(kind, tmp_path):
    import torch

    def build(folder):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")

    said = f"the GPU's memory does not suffice to make {kind.name}-.*: lower (student|reranker|rag|reaugkd)"
    with pytest.raises(TooLargeError, match=said):
        Store(tmp_path).make(kind, {}, build)


def test_other_runtime_errors_stay_what_they_are(tmp_path):
    def build(folder):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        Store(tmp_path).make(Kind("student"), {}, build)
