"""The tokenizer inside a GGUF, read and written: vocabulary, merges or scores, special ids and chat template.

Two kinds are there: "gpt2", byte-level BPE with a named way of splitting text (``tokenizer.ggml.pre``), and "llama",
SentencePiece's BPE. llama.cpp normalises no text before byte-level BPE: where the tokenizer composes characters first
(Qwen's, Unicode's form C), a text that is not so composed gets other ids there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from amauta.base.errors import ModelError
from amauta.models.exchange.gguf.file import GgufFile
from amauta.tokenize import pieces
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.pieces import BYTE, CONTROL, NORMAL, SPACE, SPLITS, UNKNOWN, UNUSED, USER_DEFINED
from amauta.tokenize.settings import Split
from amauta.tokenize.special import SPECIAL
from amauta.tokenize.template import chat_template
from amauta.tokenize.tokenizer import Tokenizer
from amauta.tokenize.train import byte_level

AnyTokenizer = Tokenizer | ForeignTokenizer
KEY = "tokenizer.ggml."
TEMPLATE = "tokenizer.chat_template"
TEMPLATES = "tokenizer.chat_templates"  # the names of further ones
BYTE_LEVEL, SENTENCEPIECE, NONE = "gpt2", "llama", "none"

# GGUF's names of special tokens; the first spelling is the format's own.
IDS = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id",
       "sep_token": "seperator_token_id", "pad_token": "padding_token_id", "mask_token": "mask_token_id"}  # fmt: skip
STOPS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Where these split text, llama.cpp puts the first token before it unless the file says otherwise.
_BEGINS = {"llama-bpe", "llama3", "llama-v3"}

# Names under which a splitting is written: (name, whole words are taken without merging, characters are composed).
WRITTEN = (("gpt-2", False, False), ("smollm", False, False), ("llama-bpe", True, False), ("dbrx", False, False),
           ("qwen2", False, True), ("stablelm2", False, False), ("default", False, False))  # fmt: skip
OWN: dict[str, Split] = {"gpt-2": "gpt2", "dbrx": "cl100k", "stablelm2": "single-digits"}


def load_tokenizer(path: Path) -> AnyTokenizer | None:
    """The tokenizer of the file at ``path``; one that was trained here comes back as such; None where there is none.

    Raises ModelError: no GGUF, a kind of tokenizer or a splitting that is not known here, lists that do not fit each
    other, an id beyond the vocabulary.
    """
    return tokenizer_of(GgufFile(path))


def tokenizer_of(file: GgufFile) -> AnyTokenizer | None:
    kind = file.fields.get(KEY + "model", NONE)
    if kind in (NONE, "no_vocab"):
        return None
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        allowed = f"{BYTE_LEVEL}, {SENTENCEPIECE}"
        raise ModelError("gguf.unsupported", path=file.path, name=KEY + "model", value=kind, allowed=allowed)
    tokens = _list(file, "tokens", str)
    types = _list(file, "token_type", int, [NORMAL] * len(tokens))
    table = file.tensors.get("token_embd.weight")
    if len(types) != len(tokens):
        raise ModelError("gguf.uneven-types", path=file.path, tokens=len(tokens), types=len(types))
    if table is not None and len(tokens) > table.shape[0]:
        raise ModelError("gguf.vocabulary", path=file.path, rows=table.shape[0], seen=len(tokens))
    pre = file.fields.get(KEY + "pre", "default")
    own = kind == BYTE_LEVEL and pre in OWN and set(SPECIAL) <= _typed(tokens, types, CONTROL)
    if own:
        return Tokenizer(_own(file, tokens, types, OWN[pre]), where=str(file.path))
    inner = _byte_level(file, tokens, types, pre) if kind == BYTE_LEVEL else _sentencepiece(file, tokens, types)
    ids = {name: _id(file, key, tokens) for name, key in IDS.items()}
    config = {name: tokens[id] for name, id in ids.items() if id is not None}
    first = file.fields.get(KEY + "add_bos_token", kind == SENTENCEPIECE or pre in _BEGINS)
    last = file.fields.get(KEY + "add_eos_token", False)
    if first or last:
        pieces.ends(inner, config.get("bos_token") if first else None, config.get("eos_token") if last else None)
    stops = [id for key in STOPS if (id := _id(file, key, tokens)) is not None]
    return ForeignTokenizer(
        inner, config, generation={"eos_token_id": stops}, template=_template(file), where=str(file.path)
    )


def _own(file: GgufFile, tokens: list[str], types: list[int], split: Split) -> tokenizers.Tokenizer:
    """A tokenizer that was trained here, as it was made."""
    merges = [tuple(one.split(" ", 1)) for one in _list(file, "merges", str)]
    unused = _typed(tokens, types, UNUSED)
    vocabulary = {token: id for id, token in enumerate(tokens) if token not in unused}
    if len(vocabulary) + len(unused) < len(tokens):
        raise ModelError("gguf.twice", path=file.path, name=next(one for one in tokens if tokens.count(one) > 1))
    pieces.check_merges(vocabulary, merges, str(file.path))
    inner = byte_level(models.BPE(vocabulary, merges), split)  # type: ignore[arg-type]
    names = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return inner


def _byte_level(file: GgufFile, tokens: list[str], types: list[int], pre: str) -> tokenizers.Tokenizer:
    special = [token for token, kind in zip(tokens, types, strict=True) if kind in (CONTROL, UNKNOWN)]
    added = [token for token, kind in zip(tokens, types, strict=True) if kind == USER_DEFINED]
    return pieces.byte_level_bpe(
        tokens, _list(file, "merges", str), special, added=added, split=pre, where=str(file.path)
    )


def _sentencepiece(file: GgufFile, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    charsmap = file.fields.get(KEY + "precompiled_charsmap")
    return pieces.sentencepiece_bpe(
        tokens, _list(file, "scores", float), types,
        prefix_space=bool(file.fields.get(KEY + "add_space_prefix", True)),
        squeeze=bool(file.fields.get(KEY + "remove_extra_whitespaces", False)),
        charsmap=bytes(one & 255 for one in charsmap) if charsmap else None,
        where=str(file.path),
    )  # fmt: skip


def _template(file: GgufFile) -> str | dict[str, str] | None:
    """The chat template, or several by name."""
    default = file.fields.get(TEMPLATE)
    names = file.fields.get(TEMPLATES) or []
    further = {name: text for name in names if (text := file.fields.get(f"{TEMPLATE}.{name}")) is not None}
    return {**({"default": default} if default else {}), **further} if further else default


def _list(file: GgufFile, name: str, kind: type, default: list[Any] | None = None) -> list[Any]:
    found = file.fields.get(KEY + name, default)
    if not isinstance(found, list) or not all(isinstance(one, kind) for one in found):
        raise ModelError("gguf.no-entry", path=file.path, name=KEY + name)
    return found


def _id(file: GgufFile, name: str, tokens: list[str]) -> int | None:
    found = file.fields.get(KEY + name)
    if found is not None and (not isinstance(found, int) or not 0 <= found < len(tokens)):
        raise ModelError("gguf.bad-value", path=file.path, name=KEY + name, value=found)
    return found


def _typed(tokens: list[str], types: list[int], wanted: int) -> set[str]:
    return {token for token, kind in zip(tokens, types, strict=True) if kind == wanted}


def fields_of(tokenizer: AnyTokenizer | None, vocabulary: int) -> dict[str, Any]:
    """The metadata of a tokenizer for a model with a table of ``vocabulary`` rows; rows beyond it are unused tokens.

    Raises ModelError: more tokens than rows, a kind or a splitting of text for which GGUF has no name, more stop
    tokens than it has room for.
    """
    if tokenizer is None:
        return {KEY + "model": NONE}
    if tokenizer.size > vocabulary:
        raise ModelError("gguf.tokenizer-too-large", size=tokenizer.size, vocabulary=vocabulary)
    whole = json.loads(tokenizer.inner.to_str())
    if whole["model"]["type"] != "BPE":
        raise ModelError("gguf.tokenizer-unwritable", what=whole["model"]["type"])
    tokens, types = _entries(tokenizer, whole, vocabulary)
    found: dict[str, Any] = {KEY + "tokens": tokens, KEY + "token_type": types}
    merges = [tuple(one.split(" ", 1)) if isinstance(one, str) else tuple(one) for one in whole["model"]["merges"]]
    if whole["model"].get("byte_fallback"):
        found |= {KEY + "model": SENTENCEPIECE, KEY + "pre": "default",
                  KEY + "add_space_prefix": _prefix_space(whole),
                  KEY + "scores": _scores(tokens, types, merges)}  # fmt: skip
    else:
        found |= {
            KEY + "model": BYTE_LEVEL,
            KEY + "pre": _pre(whole),
            KEY + "merges": [" ".join(one) for one in merges],
        }
    return found | _special(tokenizer) | _templates(tokenizer)


def _entries(tokenizer: AnyTokenizer, whole: Mapping[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """All entries with their types."""
    spelt = {id: token for token, id in tokenizer.inner.get_vocab(with_added_tokens=True).items()}
    added = {one["id"] for one in whole["added_tokens"] if not one["special"]}
    fallback = bool(whole["model"].get("byte_fallback"))
    unknown = getattr(tokenizer, "unknown", None) if fallback else None
    tokens, types = [], []
    for id in range(vocabulary):
        token = spelt.get(id)
        if token is None:
            kind = UNUSED
        elif id == unknown:
            kind = UNKNOWN
        elif id in tokenizer.special:
            kind = CONTROL
        elif id in added:
            kind = USER_DEFINED
        else:
            kind = BYTE if fallback and len(token) == 6 and token.startswith("<0x") else NORMAL
        tokens.append(f"[PAD{id}]" if token is None else token)
        types.append(kind)
    return tokens, types


def _pre(whole: Mapping[str, Any]) -> str:
    """The name under which llama.cpp splits text as this tokenizer does; ModelError when there is none."""
    normalizer = whole["normalizer"]
    composed = normalizer == {"type": "NFC"}
    patterns = _patterns(whole["pre_tokenizer"])
    if patterns is None or (normalizer is not None and not composed):
        raise ModelError("gguf.tokenizer-unwritable", what=json.dumps(normalizer or whole["pre_tokenizer"])[:200])
    for name, ignores, composes in WRITTEN:
        if (SPLITS[name], ignores, composes) == (patterns, bool(whole["model"].get("ignore_merges")), composed):
            return name
    raise ModelError("gguf.tokenizer-unwritable", what=" + ".join(patterns))


def _patterns(pre: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    """The regular expressions that cut a text one after another; None where something else is done to it."""
    steps = [] if pre is None else pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    found: list[str] = []
    for place, step in enumerate(steps, start=1):
        if step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
            found.append(step["pattern"].get("Regex", "").replace("{1,1}", ""))
        elif step["type"] == "Digits" and step["individual_digits"]:
            found.append(r"\p{N}")
        elif step["type"] == "ByteLevel" and not step["add_prefix_space"] and place == len(steps):
            return tuple([*found, *SPLITS["gpt-2"]] if step["use_regex"] else found)
        else:
            return None
    return None


def _prefix_space(whole: Mapping[str, Any]) -> bool:
    """Whether SentencePiece's space is put before a text; ModelError when anything else is done to it."""
    normalizer, pre = whole["normalizer"], whole["pre_tokenizer"]
    if normalizer is None and pre is not None and pre["type"] == "Metaspace" and not pre["split"]:
        return pre["prepend_scheme"] != "never"
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    prepend = {"type": "Prepend", "prepend": SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    if pre is not None or steps not in ([replace], [prepend, replace]):
        raise ModelError("gguf.tokenizer-unwritable", what=json.dumps(normalizer or pre)[:200])
    return steps[0] == prepend


def _scores(tokens: list[str], types: list[int], merges: list[tuple[str, ...]]) -> list[float]:
    """SentencePiece's scores: of two pieces, the one whose merge comes first has the higher."""
    rank: dict[str, int] = {}
    for left, right in merges:
        rank.setdefault(left + right, len(rank))
    for token, kind in zip(tokens, types, strict=True):
        if kind == NORMAL and len(token) > 1 and token not in rank:
            raise ModelError("gguf.tokenizer-unwritable", what=token)
    return [-float(rank[token]) if kind == NORMAL and token in rank else 0.0
            for token, kind in zip(tokens, types, strict=True)]  # fmt: skip


def _special(tokenizer: AnyTokenizer) -> dict[str, Any]:
    ids = {"bos_token_id": tokenizer.begin, "padding_token_id": tokenizer.pad,
           "unknown_token_id": getattr(tokenizer, "unknown", None),
           "seperator_token_id": getattr(tokenizer, "separator", None),
           "mask_token_id": getattr(tokenizer, "mask", None)}  # fmt: skip
    if len(tokenizer.stops) > len(STOPS):
        raise ModelError("gguf.too-many-stops", seen=len(tokenizer.stops), most=len(STOPS))
    ids |= dict(zip(STOPS, tokenizer.stops, strict=False))
    found = {KEY + name: id for name, id in ids.items() if id is not None}
    return found | {KEY + "add_bos_token": bool(tokenizer.prompt("")), KEY + "add_eos_token": False}


def _templates(tokenizer: AnyTokenizer) -> dict[str, Any]:
    if isinstance(tokenizer, Tokenizer):
        return {TEMPLATE: chat_template(tokenizer.names.values())}
    if tokenizer.template is None:
        return {}
    source = tokenizer.template.source
    if isinstance(source, str):
        return {TEMPLATE: source}
    further = {f"{TEMPLATE}.{name}": text for name, text in source.items() if name != "default"}
    default = {TEMPLATE: source["default"]} if "default" in source else {}
    return {TEMPLATES: [name for name in source if name != "default"], **default, **further}
