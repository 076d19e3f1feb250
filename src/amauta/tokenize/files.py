"""The tokenizer of a model folder: from ``tokenizer.json``, or from the files that older folders have instead."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from amauta.base.errors import ModelError
from amauta.runs import CONFIG, GENERATION
from amauta.tokenize.foreign import MAP_FILE, TEMPLATE_FILE, ForeignTokenizer, added_token
from amauta.tokenize.pieces import CONTROL, SPLITS, UNKNOWN, check_merges, ends
from amauta.tokenize.sentencepiece import read_sentencepiece, tokenizer_of
from amauta.tokenize.special import SPECIAL
from amauta.tokenize.tokenizer import CONFIG_FILE, TOKENIZER_FILE, Tokenizer

_WORDPIECE, _VOCABULARY, _MERGES = "vocab.txt", "vocab.json", "merges.txt"
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_TEMPLATES = "additional_chat_templates"

# The families whose older files are known -> the model types and (without Tokenizer[Fast]) tokenizer classes of each.
_FAMILIES = {
    "bert": ("bert", "distilbert", "electra"),
    "roberta": ("roberta", "bart"),
    "gpt2": ("gpt2",),
    "qwen2": ("qwen2", "qwen3"),
    "openai-gpt": ("openai-gpt", "openaigpt"),
    "t5": ("t5",),
    "albert": ("albert",),
    "llama": ("llama", "mistral"),
    "gemma": ("gemma", "gemma2", "gemma3", "gemma3_text"),
    "reformer": ("reformer",),
}
_FAMILY = {name: family for family, names in _FAMILIES.items() for name in names}

_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_S = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_TEXT = "<|endoftext|>"
# What a family's special tokens are called where no file says it.
_DEFAULTS: dict[str, dict[str, str]] = {
    "bert": _BERT,
    "roberta": {**_S, "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>"},
    "gpt2": {"bos_token": _TEXT, "eos_token": _TEXT, "unk_token": _TEXT},
    "qwen2": {"eos_token": _TEXT, "pad_token": _TEXT},
    "openai-gpt": {"unk_token": "<unk>"},
    "t5": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "albert": {**_BERT, "unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "[CLS]", "eos_token": "[SEP]"},
    "llama": _S,
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "reformer": {"eos_token": "</s>", "unk_token": "<unk>"},
}


def load_tokenizer(folder: Path) -> Tokenizer | ForeignTokenizer | None:
    """The tokenizer of a folder, ours or another model's; None where it has none.

    Read are tokenizer.json; else vocab.txt (WordPiece), vocab.json with merges.txt (BPE of the families above) or a
    SentencePiece model; with them tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json
    (its model_type) and the chat template. ModelError, naming the file, for one that is damaged.
    """
    folder = Path(folder)
    config = _json(folder / MAP_FILE) | _json(folder / CONFIG_FILE)
    family = _family(folder, config)
    path = folder / TOKENIZER_FILE
    if path.is_file():
        inner = _parsed(path)
        if set(SPECIAL) <= {one.content for one in inner.get_added_tokens_decoder().values() if one.special}:
            return Tokenizer.load(folder)
    else:
        found = _older(folder, config, family)
        if found is None:
            return None
        inner = found
        config.pop("tokenizer_file", None)
    for name, token in _DEFAULTS.get(family or "", {}).items():
        if config.get(name) is None and inner.token_to_id(token) is not None:
            config[name] = token
    _follow(inner, config)
    generation = _json(folder / GENERATION)
    return ForeignTokenizer(inner, config, generation=generation, template=_template(folder, config), where=str(folder))


def _older(folder: Path, config: dict[str, Any], family: str | None) -> tokenizers.Tokenizer | None:
    """The tokenizer of a folder without tokenizer.json; None where it has no other file of one."""
    model = next((folder / name for name in _SENTENCEPIECE if (folder / name).is_file()), None)
    if (folder / _WORDPIECE).is_file():
        inner = _wordpiece(folder / _WORDPIECE, config)
    elif (folder / _VOCABULARY).is_file() or (folder / _MERGES).is_file():
        inner = _merged(folder, config, family)
    elif model is not None:
        inner = _pieces(model, config, family)
    else:
        return None
    _add_listed(inner, folder, config)
    asked = {"add_bos_token": family in ("llama", "gemma"), **config}
    known = _DEFAULTS.get(family or "", {})
    names = [_name(config, key, known.get(key, "")) for key in ("bos_token", "eos_token")]
    first, last = (
        name if name and asked.get(f"add_{key}_token") else None
        for key, name in zip(("bos", "eos"), names, strict=True)
    )
    if inner.post_processor is None and (first or last):
        ends(inner, first, last)
    return inner


def _wordpiece(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's (Devlin et al. 2018): one entry a line."""
    lines = _text(path).split("\n")
    entries = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    vocabulary = {entry: id for id, entry in enumerate(entries)}
    names = {name: _name(config, name, token) for name, token in _BERT.items()}
    for name in ("unk_token", "cls_token", "sep_token"):
        if names[name] not in vocabulary:
            raise ModelError("tokenize.bad-file", path=path, reason=f"{name} '{names[name]}' is not in it")
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##")
    _classified(inner, names["cls_token"], names["sep_token"])
    return inner


def _merged(folder: Path, config: Mapping[str, Any], family: str | None) -> tokenizers.Tokenizer:
    """BPE out of vocab.json and merges.txt: the families differ in what they cut and in what they put round."""
    if family not in ("gpt2", "roberta", "qwen2", "openai-gpt"):
        raise ModelError("tokenize.unknown-layout", folder=folder, names=f"{_VOCABULARY}, {_MERGES}",
                         allowed="gpt2, roberta, bart, qwen2, qwen3, openai-gpt")  # fmt: skip
    vocabulary = _json(folder / _VOCABULARY, needed=True)
    lines = _text(folder / _MERGES).split("\n")
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    check_merges(vocabulary, merges, str(folder / _MERGES))
    words = {"end_of_word_suffix": "</w>", "unk_token": _name(config, "unk_token", "<unk>")}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges, **(words if family == "openai-gpt" else {})))
    space = bool(config.get("add_prefix_space", False))
    if family == "openai-gpt":
        inner.normalizer = normalizers.BertNormalizer(lowercase=True)
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.BPEDecoder(suffix="</w>")
        return inner
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    inner.decoder = decoders.ByteLevel()
    if family == "qwen2":
        inner.normalizer = normalizers.NFC()
        cuts = [pre_tokenizers.Split(tokenizers.Regex(one), behavior="isolated") for one in SPLITS["qwen2"]]
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False)]
        )
    if family == "roberta":
        first, last = _name(config, "cls_token", "<s>"), _name(config, "sep_token", "</s>")
        ids = [(one, vocabulary.get(one)) for one in (last, first)]
        if None in (ids[0][1], ids[1][1]):
            raise ModelError("tokenize.bad-file", path=folder / _VOCABULARY, reason=f"'{first}' or '{last}' is missing")
        inner.post_processor = processors.RobertaProcessing(ids[0], ids[1], True, space)
    return inner


def _pieces(path: Path, config: dict[str, Any], family: str | None) -> tokenizers.Tokenizer:
    """Out of a SentencePiece model."""
    model = read_sentencepiece(path)
    known = _DEFAULTS.get(family or "", {})
    for name, id in model.special.items():
        if model.types[id] in (UNKNOWN, CONTROL) and known.get(name) not in model.pieces:
            config.setdefault(name, model.pieces[id])
    changes: dict[str, Any] = {}
    if family == "t5":
        count = int(config.get("extra_ids", 100))
        changes["further"] = tuple(f"<extra_id_{number}>" for number in reversed(range(count)))
    elif family == "albert":
        quotes = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        accents = [] if config.get("keep_accents") else [normalizers.NFKD(), normalizers.StripAccents()]
        small = [normalizers.Lowercase()] if config.get("do_lower_case", True) else []
        changes |= {"first": (*quotes, *accents, *small), "numbers": True}
    inner = tokenizer_of(model, str(path), **changes)
    if family == "t5":
        ends(inner, last=_name(config, "eos_token", "</s>"))
    elif family == "albert":
        _classified(inner, _name(config, "cls_token", "[CLS]"), _name(config, "sep_token", "[SEP]"))
    return inner


def _follow(inner: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """What tokenizer_config.json says of lower case and spaces holds against tokenizer.json, as in other libraries.

    Of the first and the last token it does not: there tokenizer.json holds, and add_bos_token is for older folders.
    """
    if isinstance(inner.normalizer, normalizers.BertNormalizer):
        for key, name in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"),
                          ("tokenize_chinese_chars", "handle_chinese_chars")):  # fmt: skip
            if key in config:
                setattr(inner.normalizer, name, config[key])
    if isinstance(inner.pre_tokenizer, pre_tokenizers.ByteLevel) and config.get("add_prefix_space") is not None:
        inner.pre_tokenizer.add_prefix_space = bool(config["add_prefix_space"])


def _add_listed(inner: tokenizers.Tokenizer, folder: Path, config: Mapping[str, Any]) -> None:
    """Tokens that older folders list beside the vocabulary, with their ids; ModelError where these cannot be so."""
    listed: dict[int, AddedToken] = {}
    for name, id in _json(folder / "added_tokens.json").items():
        listed[int(id)] = AddedToken(name, special=name in map(str, config.values()), normalized=False)
    for id, token in (config.get("added_tokens_decoder") or {}).items():
        one = added_token(token)
        one.special = not isinstance(token, Mapping) or bool(token.get("special", False))
        listed[int(id)] = one
    for id, token in sorted(listed.items()):
        inner.add_tokens([token])
        if inner.token_to_id(token.content) != id:
            raise ModelError("tokenize.added-elsewhere", folder=folder, name=token.content, id=id,
                             found=inner.token_to_id(token.content))  # fmt: skip


def _classified(inner: tokenizers.Tokenizer, first: str, last: str) -> None:
    inner.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{first}:0 $A:0 {last}:0",
        pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
        special_tokens=[(name, inner.token_to_id(name)) for name in (first, last)],
    )


def _family(folder: Path, config: Mapping[str, Any]) -> str | None:
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer").lower()
    return _FAMILY.get(name) or _FAMILY.get(str(_json(folder / CONFIG).get("model_type")))


def _template(folder: Path, config: dict[str, Any]) -> str | dict[str, str] | None:
    """The chat template, from its own file or from the config; several by name."""
    listed = config.pop("chat_template", None)
    named: dict[str, str] = {}
    try:
        if isinstance(listed, list):
            named = {one["name"]: one["template"] for one in listed}
        elif listed is not None:
            named = dict(listed) if isinstance(listed, Mapping) else {"default": listed}
        if not all(isinstance(one, str) for one in named.values()):
            raise TypeError("chat_template")
    except (TypeError, KeyError, ValueError) as error:
        raise ModelError("tokenize.bad-file", path=folder / CONFIG_FILE, reason=f"chat_template: {error}") from None
    if (folder / TEMPLATE_FILE).is_file():
        named["default"] = _text(folder / TEMPLATE_FILE)
    for path in sorted((folder / _TEMPLATES).glob("*.jinja")):
        named[path.stem] = _text(path)
    return (named["default"] if named.keys() == {"default"} else named) or None


def _name(config: Mapping[str, Any], key: str, default: str) -> str:
    return added_token(config[key]).content if config.get(key) is not None else default


def _parsed(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception for whatever it cannot parse
        raise ModelError("tokenize.bad-file", path=path, reason=error) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError("tokenize.bad-file", path=path, reason=error) from None


def _json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """A JSON object; {} where there is no such file, unless it is needed."""
    if not needed and not path.is_file():
        return {}
    try:
        found = json.loads(_text(path))
        if not isinstance(found, dict):
            raise ValueError(f"{type(found).__name__} at the top")
        return found
    except ValueError as error:
        raise ModelError("tokenize.bad-file", path=path, reason=error) from None
