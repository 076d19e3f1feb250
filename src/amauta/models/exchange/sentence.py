"""Sentence encoders: folders of sentence-transformers (Reimers and Gurevych 2019, arXiv 1908.10084), both directions.

modules.json lists what a text goes through: Transformer, Pooling, then at most one Dense and one Normalize. The
transformer is a model folder of any family, at the top or in a folder of its own; the rest becomes ``spec.sentence``
and ``outputs.sentence``. Differences from that library: prompts are not kept, since it adds none unless it is asked to;
a Dense without a bias gets one of zeros.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amauta.base.errors import ModelError
from amauta.models.exchange.options import refuse
from amauta.models.exchange.weights import SINGLE, Weights
from amauta.models.spec import Pooling, Sentence, Spec
from amauta.runs import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

MODULES = "modules.json"
ORDERS = tuple(("Transformer", "Pooling", *dense, *norm) for dense in ((), ("Dense",)) for norm in ((), ("Normalize",)))
POOLINGS: dict[str, Pooling] = {  # their names to ours
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
SWITCHES = {  # one a kind of pooling, in files of before version 6; every version reads them
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
ACTIVATIONS = {"tanh": "torch.nn.modules.activation.Tanh", "identity": "torch.nn.modules.linear.Identity"}
UNBOUNDED = 10**6  # a tokenizer without a limit says 10^30


def encoder_folder(folder: Path) -> Path:
    """Where the transformer of a folder is: at the top, or where modules.json says."""
    return _modules(folder).get("Transformer", folder)


def overlay(folder: Path, spec: Spec) -> Spec:
    """The spec with what a sentence-transformers folder adds to it; as it is for any other folder.

    ModelError names modules, poolings and options that are not computed here.
    """
    modules = _modules(folder)
    if not modules:
        return spec
    refuse(_table(folder / "config_sentence_transformers.json"),
           {"model_type": ("SentenceTransformer",), "default_prompt_name": (None,)})  # fmt: skip
    dense = _table(modules["Dense"] / "config.json") if "Dense" in modules else {}
    norm = _table(modules["Normalize"] / "config.json") if "Normalize" in modules else {}
    refuse(dense, {"use_residual": (False,), "activation_function": tuple(ACTIVATIONS.values()),
                   "in_features": (spec.width,)})  # fmt: skip
    for table in (dense, norm):
        refuse(table, {name: ("sentence_embedding", None) for name in ("module_input_name", "module_output_name")})
    activation = dense.get("activation_function", ACTIVATIONS["tanh"])
    how = _table(modules["Transformer"] / "sentence_bert_config.json")
    refuse(how, {"transformer_task": ("feature-extraction",), "query_expansion": (None,),
                 "module_output_name": ("token_embeddings", None)})  # fmt: skip
    sentence = Sentence(
        pooling=_pooling(modules["Pooling"] / "config.json"),
        dense=dense.get("out_features"),
        dense_activation="tanh" if activation == ACTIVATIONS["tanh"] else "identity",
        normalize="Normalize" in modules,
        longest=_longest(how, modules["Transformer"], spec),
        lower=how.get("do_lower_case", False),
    )
    return dataclasses.replace(spec, sentence=sentence)


def tensors(folder: Path) -> "dict[str, Tensor]":
    """The dense layer of a sentence-transformers folder, under our names; nothing where there is none."""
    dense = _modules(folder).get("Dense")
    if dense is None:
        return {}
    with Weights(dense) as weights:
        found = {f"outputs.sentence.{name.removeprefix('linear.')}": weights.read(name) for name in weights.names}
    weight = found.get("outputs.sentence.weight")
    if "outputs.sentence.bias" not in found and weight is not None:
        found["outputs.sentence.bias"] = weight.new_zeros(len(weight))
    return found


def write(spec: Spec, tensors: "Mapping[str, Tensor]", folder: Path) -> None:
    """What a saved model's folder needs besides, for ``SentenceTransformer(folder)``; nothing without spec.sentence."""
    sentence = spec.sentence
    if sentence is None:
        return
    names = ["Transformer", "Pooling", *["Dense"] * (sentence.dense is not None), *["Normalize"] * sentence.normalize]
    paths = ["", *(f"{i}_{name}" for i, name in enumerate(names[1:], start=1))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    theirs = {ours: name for name, ours in POOLINGS.items()}[sentence.pooling]
    pooling = {switch: name == theirs for switch, name in SWITCHES.items()}
    _write(folder / "1_Pooling/config.json", {"word_embedding_dimension": spec.width, **pooling})
    how = {"max_seq_length": sentence.longest, "do_lower_case": sentence.lower}
    _write(folder / "sentence_bert_config.json", how)
    _write(folder / "config_sentence_transformers.json", {"model_type": "SentenceTransformer"})
    if sentence.dense is not None:
        _write_dense(spec.width, sentence, tensors, folder / paths[names.index("Dense")])
    _write(folder / MODULES, modules)


def _write_dense(width: int, sentence: Sentence, tensors: "Mapping[str, Tensor]", folder: Path) -> None:
    from safetensors.torch import save

    _write(folder / "config.json", {"in_features": width, "out_features": sentence.dense, "bias": True,
                                    "activation_function": ACTIVATIONS[sentence.dense_activation]})  # fmt: skip
    linear = {f"linear.{name}": tensors[f"outputs.sentence.{name}"].contiguous() for name in ("weight", "bias")}
    write_atomically(folder / SINGLE, save(linear, metadata={"format": "pt"}))


def _modules(folder: Path) -> dict[str, Path]:
    """The folder of each module, by its kind and in order; nothing where the folder is not of sentence-transformers."""
    listed = _json(folder / MODULES)
    if listed is None:
        return {}
    try:
        types = [str(module["type"]) for module in listed]
        paths = [str(module["path"]) for module in listed]
    except (TypeError, KeyError) as error:
        raise ModelError("sentence.unreadable", file=folder / MODULES, reason=repr(error)) from None
    # a class of somebody else's keeps its whole name, which is in none of the orders
    kinds = tuple(kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind for kind in types)
    if kinds not in ORDERS:
        raise ModelError("sentence.other-modules", file=folder / MODULES, modules=", ".join(kinds) or "-")
    outside = [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if outside:
        raise ModelError("sentence.outside", file=folder / MODULES, paths=", ".join(outside))
    return {kind: folder / path for kind, path in zip(kinds, paths, strict=True)}


def _pooling(file: Path) -> Pooling:
    config = _table(file)
    if "pooling_mode" in config:
        said = config["pooling_mode"]
        modes = [said] if isinstance(said, str) else list(said)
    else:
        modes = [name for switch, name in SWITCHES.items() if config.get(switch)] or ["mean"]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ModelError("sentence.poolings", file=file, modes=", ".join(map(str, modes)), allowed=", ".join(POOLINGS))
    return POOLINGS[modes[0]]


def _longest(how: Mapping[str, Any], encoder: Path, spec: Spec) -> int | None:
    """Tokens read of a text, its first and last among them: the folder's own limit, else its tokenizer's, and never
    more than the model takes."""
    said = how.get("max_seq_length") or _table(encoder / "tokenizer_config.json").get("model_max_length")
    limits = [limit for limit in (said, spec.limit) if limit is not None and limit < UNBOUNDED]
    return int(min(limits)) if said is not None and limits else None


def _table(file: Path) -> dict[str, Any]:
    """A JSON file that holds a table; an absent one is an empty one."""
    value = _json(file)
    if value is not None and not isinstance(value, dict):
        raise ModelError("sentence.unreadable", file=file, reason=f"{type(value).__name__} at the top")
    return value or {}


def _json(file: Path) -> Any:
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("sentence.unreadable", file=file, reason=error) from None


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(value, indent=2) + "\n")
