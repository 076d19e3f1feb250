"""The tokenizer of another model: its own vocabulary, special tokens, first and last tokens, and chat template.

Byte-level BPE (GPT-2, RoBERTa, BART, Llama 3, Qwen, SmolLM2), SentencePiece's BPE and Unigram (Llama 2, Mistral, Gemma,
T5, ALBERT, Reformer), WordPiece (BERT, ELECTRA) and BPE with word ends (openai-gpt). ``files.py`` loads them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from amauta.base.errors import ModelError
from amauta.runs import write_atomically
from amauta.tokenize.dialogue import Dialogues
from amauta.tokenize.jinja import ChatTemplate
from amauta.tokenize.marks import check, renamed
from amauta.tokenize.tokenizer import (
    CONFIG_FILE,
    SEGMENTED,
    TOKENIZER_FILE,
    byte_characters,
    fingerprint_of,
    shorten,
    utf8,
)

MAP_FILE = "special_tokens_map.json"
TEMPLATE_FILE = "chat_template.jinja"
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FLAGS = ("lstrip", "rstrip", "single_word", "normalized")
_BYTES = byte_characters()
_KNOWN = {"ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "Replace", "ByteFallback", "Fuse", "Strip"}


class ForeignTokenizer:
    """A tokenizer of the ``tokenizers`` library, used as the model that it belongs to was trained.

    ``size`` is the greatest id and one; ``begin``, ``end``, ``pad``, ``mask``, ``separator``, ``classifier`` and
    ``unknown`` are ids, or None where the model has none (a missing pad is never the end token); ``special`` all
    reserved ids, ``names`` their names; ``stops`` the ids at which generation ends; ``max_length`` the context length
    that the folder told, or None; ``has_chat`` whether there is a chat template.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        config: Mapping[str, Any] | None = None,
        *,
        generation: Mapping[str, Any] | None = None,
        template: str | Mapping[str, str] | None = None,
        where: str = "tokenizer",
    ) -> None:
        """``config``: what a tokenizer_config.json (and special_tokens_map.json) says; ``generation``: ids of a
        generation_config.json, used where the config names no token; ``template``: the chat template, or several by
        name. ModelError for an id beyond the vocabulary, a template that is not Jinja, an unknown way of decoding.
        """
        self.config, self.generation, self.where = dict(config or {}), dict(generation or {}), where
        self._template = template
        self._truncation, self._padding = inner.truncation, inner.padding
        inner.no_padding()
        inner.no_truncation()
        inner.encode_special_tokens = True  # text is text: the name of a special token in it is split like any other
        self.inner = inner
        tokens = _named_tokens(self.config)
        _add_missing(inner, tokens, self.config)
        vocabulary = inner.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values(), default=-1) + 1
        self.names = {id: one.content for id, one in sorted(inner.get_added_tokens_decoder().items()) if one.special}
        self.special = frozenset(self.names)
        self._added = {id: one.content for id, one in inner.get_added_tokens_decoder().items() if not one.special}
        self._spelt = {name: str(tokens[name]) for name in NAMED if name in tokens}
        ids = {name: vocabulary[token] for name, token in self._spelt.items() if token in vocabulary}
        self.ends = _ids(self.generation.get("eos_token_id"), self.size, where)
        first = _ids(self.generation.get("bos_token_id"), self.size, where)
        padding = _ids(self.generation.get("pad_token_id"), self.size, where)
        self.begin: int | None = ids.get("bos_token", first[0] if first else None)
        self.end: int | None = ids.get("eos_token", self.ends[0] if self.ends else None)
        self.pad: int | None = ids.get("pad_token", padding[0] if padding else None)
        self.mask, self.separator = ids.get("mask_token"), ids.get("sep_token")
        self.classifier, self.unknown = ids.get("cls_token"), ids.get("unk_token")
        length = self.config.get("model_max_length")
        self.max_length: int | None = length if isinstance(length, int) and 0 < length < 10**12 else None
        self.template = None if template is None else ChatTemplate(template, self._spelt, where=where)
        self.has_chat = template is not None
        self._steps = _decoding(inner, where)
        self._first = self._ends_of("a")[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._text(), self.config, self.generation, self._template, self.where)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text`` alone; never a special one, but for the unknown token. DataError on a lone surrogate."""
        return self._encoding(text).ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """As ``encode``, for many texts on all cores."""
        try:
            found = [one.ids for one in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            for text in texts:
                utf8(text)
            raise
        return [ids if self._harmless(ids, text) else self.encode(text) for ids, text in zip(found, texts, strict=True)]

    def around(self, text: str, pair: str | None = None, *, longest: int | None = None) -> tuple[list[int], list[int]]:
        """The ids and the segments (0, 1) of a text, or of two, with the first and last tokens that the model wants.

        ``[CLS] text [SEP] pair [SEP]``, ``text </s>``, ``<s> text``: an encoder's input, as the tokenizer's own
        post-processor lays it out. ``longest`` cuts ends (``shorten``), so that all has at most so many tokens.
        """
        one = self._encoding(text)
        two = None if pair is None else self._encoding(pair)
        if longest is not None:
            extra = self.inner.num_special_tokens_to_add(pair is not None)
            sizes = shorten(len(one), 0 if two is None else len(two), longest - extra)
            one.truncate(sizes[0])
            if two is not None:
                two.truncate(sizes[1])
        if self.inner.post_processor is None:
            second = [] if two is None else two.ids
            return one.ids + second, [0] * len(one.ids) + [1] * len(second)
        laid = self.inner.post_process(one, two, add_special_tokens=True)
        return laid.ids, laid.type_ids

    def document(self, text: str) -> list[int]:
        """A whole text for training: as ``around``, and the end token last, where the model has one."""
        ids, _ = self.around(text)
        return ids if self.end is None or ids[-1:] == [self.end] else [*ids, self.end]

    def prompt(self, text: str) -> list[int]:
        """What a model continues: the first token that the tokenizer puts before a text, if any, and the text's ids.

        Never a last token. The encoder of an encoder-decoder reads ``around(text)`` instead.
        """
        return [*self._first, *self.encode(text)]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ``ids``; special tokens are left out, or named. ModelError for an id that is none."""
        plain = _plain(ids)
        for id in plain:
            self._known(id)
        return self.inner.decode(plain, skip_special_tokens=not special)

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes of one token within a text, ``b""`` for a special one. ModelError when there is no such id.

        A space that belongs to it is there: before a word (SentencePiece, WordPiece) or after it (openai-gpt). So the
        joined bytes are ``decode``'s text but for what some tokenizers do at a text's ends, and WordPiece's to signs.
        """
        self._known(id)
        piece = self.inner.id_to_token(id)
        if id in self._added:  # spelt as in a text
            return self._added[id].encode()
        return b"" if piece is None or id in self.special else _piece_bytes(piece, self._steps)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""Each token for a reader: its text, bytes that are no character as ``\xc3``, special tokens by name."""
        return [
            self.names.get(id) or self.token_bytes(id).decode("utf-8", errors="backslashreplace") for id in _plain(ids)
        ]

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """The end token, those of the generation config, and the one by which the chat template ends an answer."""
        turn = self.dialogues.ending() if self.has_chat else None
        found = [id for id in (self.end, *self.ends, turn) if id is not None]
        return tuple(dict.fromkeys(found))

    @cached_property
    def dialogues(self) -> Dialogues:
        """What lays out dialogues (``chat.render``). ModelError for a model without a chat template."""
        if self.template is None:
            raise ModelError("tokenize.no-template", where=self.where)
        return Dialogues(self.template, lambda: self._renamed, self.names)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the ids: vocabulary, merges, splitting and special tokens. 32 hex digits."""
        return fingerprint_of(self.inner)

    def save(self, folder: Path, *, max_length: int | None = None, segments: bool = False) -> None:
        """Write ``tokenizer.json``, ``tokenizer_config.json`` and the chat template, so that others read the same.

        ``max_length`` is the model's context in tokens; without it, what the tokenizer was loaded with. ``segments``:
        the model reads which text of a pair a token belongs to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TOKENIZER_FILE, self._text())
        config = {key: value for key, value in self.config.items() if key != "chat_template"}
        # Other classes make the tokenizer anew from parts of the file, with defaults of their own for the rest.
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        config.setdefault("clean_up_tokenization_spaces", False)
        if segments:
            config["model_input_names"] = list(SEGMENTED)
        if max_length or self.max_length:
            config["model_max_length"] = max_length or self.max_length
        if isinstance(self._template, Mapping):
            config["chat_template"] = [{"name": name, "template": one} for name, one in self._template.items()]
        write_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        if isinstance(self._template, str):
            write_atomically(folder / TEMPLATE_FILE, self._template)

    @cached_property
    def _renamed(self) -> tokenizers.Tokenizer:
        return renamed(self.inner, self.names)

    def _encoding(self, text: str) -> tokenizers.Encoding:
        try:
            found = self.inner.encode(text, add_special_tokens=False)
        except TypeError:
            utf8(text)  # says what is wrong with it
            raise
        if self._harmless(found.ids, text):
            return found
        # A merge, or Unigram, can spell a special token's name: in this copy nothing is called so.
        check(text, "text")
        return self._renamed.encode(text, add_special_tokens=False)

    def _harmless(self, ids: Sequence[int], text: str) -> bool:
        """Whether no name of a special token became one: the unknown token may stand for unknown characters only."""
        met = self.special.intersection(ids)
        return not met or (met == {self.unknown} and self._spelt["unk_token"] not in text)

    def _ends_of(self, text: str) -> tuple[list[int], list[int]]:
        """The special tokens that stand before and after ``text`` in ``around``."""
        laid = self.inner.encode(text)
        own = [i for i, special in enumerate(laid.special_tokens_mask) if not special] or [len(laid.ids)]
        return laid.ids[: own[0]], laid.ids[own[-1] + 1 :]

    def _known(self, id: int) -> None:
        if not 0 <= id < self.size:
            raise ModelError("tokenize.unknown-id", id=id, last=self.size - 1)

    def _text(self) -> str:
        """The whole tokenizer.json, with what was taken out of it for use."""
        copy = tokenizers.Tokenizer.from_str(self.inner.to_str())
        if self._truncation is not None:
            copy.enable_truncation(**self._truncation)
        if self._padding is not None:
            copy.enable_padding(**self._padding)
        return copy.to_str(pretty=True)


def _again(
    text: str, config: dict[str, Any], generation: dict[str, Any], template: Any, where: str
) -> ForeignTokenizer:
    inner = tokenizers.Tokenizer.from_str(text)
    return ForeignTokenizer(inner, config, generation=generation, template=template, where=where)


def added_token(value: Any) -> AddedToken:
    """A special token out of a config, where it is a name or, in older files, an object with flags."""
    if isinstance(value, Mapping):
        flags = {flag: bool(value[flag]) for flag in _FLAGS if flag in value}
        return AddedToken(str(value["content"]), special=True, **{"normalized": False, **flags})
    return AddedToken(str(value), special=True, normalized=False)


def _named_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: added_token(config[name]).content for name in NAMED if config.get(name) is not None}


def _add_missing(inner: tokenizers.Tokenizer, tokens: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Let ``inner`` know every special token that the config names and tokenizer.json has not among its own."""
    known = {one.content: one.special for one in inner.get_added_tokens_decoder().values()}
    further: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        further += value.values() if isinstance(value, Mapping) else value
    wanted = [added_token(one) for one in [*(config[name] for name in tokens), *further]]
    inner.add_special_tokens([one for one in wanted if not known.get(one.content, False)])


def _ids(value: Any, size: int, where: str) -> list[int]:
    """A generation config's ids, one or several; ModelError for one beyond the vocabulary."""
    found = [] if value is None else [value] if isinstance(value, int) else list(value)
    for id in found:
        if not isinstance(id, int) or not 0 <= id < size:
            raise ModelError("tokenize.id-beyond", where=where, id=id, last=size - 1)
    return found


def _decoding(inner: tokenizers.Tokenizer, where: str) -> list[dict[str, Any]]:
    """The steps from pieces to text; ModelError for one that is not known here."""
    if inner.decoder is None:
        return []
    whole = json.loads(inner.decoder.__getstate__())
    steps = whole["decoders"] if whole["type"] == "Sequence" else [whole]
    for step in steps:
        if step["type"] not in _KNOWN:
            raise ModelError("tokenize.unknown-decoder", where=where, kind=step["type"], allowed=", ".join(_KNOWN))
    return steps


def _piece_bytes(piece: str, steps: Sequence[Mapping[str, Any]]) -> bytes:
    """The bytes of an entry of the vocabulary. What steps do to a text's ends is left out."""
    if not steps:
        return f" {piece}".encode()  # the library joins pieces by spaces
    for step in steps:
        kind = step["type"]
        if kind == "ByteLevel":
            plain = all(character in _BYTES for character in piece)
            return bytes(_BYTES[character] for character in piece) if plain else piece.encode()
        if kind == "ByteFallback" and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        if kind == "Replace":
            piece = piece.replace(step["pattern"].get("String", "\0"), step["content"])
        elif kind == "Metaspace":
            piece = piece.replace(step["replacement"], " ")
        elif kind == "BPEDecoder":
            piece = piece.replace(step["suffix"], " ")
        elif kind == "WordPiece":
            piece = piece.removeprefix(step["prefix"]) if piece.startswith(step["prefix"]) else f" {piece}"
    return piece.encode()


def _plain(ids: Any) -> list[int]:
    """Python integers from a list, an array or a tensor."""
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
