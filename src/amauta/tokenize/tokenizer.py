"""The tokenizer: text to ids and back, byte for byte.

Byte-level BPE as in GPT-2 (Radford et al. 2019): a text's UTF-8 bytes are the alphabet, so that every text has ids,
there is no unknown token, and what is decoded is what was encoded. It differs from GPT-2's own in its special tokens
(``special.py``) and in that no token is ever put before or after a text by itself.

A document stops at ``<|end|>`` and an answer in a dialogue at ``<|turn|>``. ``tokenizer_config.json`` has room for
one end only and says ``<|end|>``; a model's ``generation_config.json`` must list both (``Tokenizer.stops``).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from amauta.base.errors import DataError, ModelError
from amauta.runs import write_atomically
from amauta.tokenize.special import BEGIN, CLASSIFIER, END, MASKS, PAD, ROLES, SEPARATOR, SPECIAL, TURN
from amauta.tokenize.template import chat_template

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SEGMENTED = ("input_ids", "token_type_ids", "attention_mask")  # what other libraries hand to a model with segments


class Tokenizer:
    """A byte-level tokenizer of the ``tokenizers`` library with this package's special tokens.

    ``size`` entries; ``pad``, ``begin``, ``end``, ``turn`` are ids, ``roles`` the ids that open a message of each
    role, ``special`` all reserved ids, ``names`` their names; ``stops`` the ids at which generation ends;
    ``max_length`` the context length that the folder told, or None.

    Raises ModelError when ``inner`` lacks a special token (named in the error), can make one from a text, or is not
    byte-level.
    """

    def __init__(
        self, inner: tokenizers.Tokenizer, *, max_length: int | None = None, where: str = TOKENIZER_FILE
    ) -> None:
        inner.no_padding()
        inner.no_truncation()
        self.inner = inner
        self.max_length = max_length
        self.size = inner.get_vocab_size()
        self.names = _special_names(inner, where)
        self._bytes = _bytes_of_tokens(inner, self.names, where)
        # Text is text: the name of a special token in it is split into bytes like any other.
        inner.encode_special_tokens = True
        ids = {name: id for id, name in self.names.items()}
        self.pad, self.begin, self.end, self.turn = ids[PAD], ids[BEGIN], ids[END], ids[TURN]
        self.roles = {role: ids[name] for role, name in ROLES.items()}
        self.classifies = CLASSIFIER in ids and SEPARATOR in ids
        self.edges = (ids[CLASSIFIER], ids[SEPARATOR]) if self.classifies else (self.begin, self.end)
        self.special = frozenset(self.names)
        self.stops = (self.end, self.turn)
        self.has_chat = True
        for name in self.names.values():
            if not self.special.isdisjoint(self.encode(name)):
                raise ModelError("tokenize.special-from-text", where=where, name=name)

    def __reduce__(self) -> tuple[Any, ...]:
        # The library's own copies forget that special tokens in a text are text; a new object does not.
        return _again, (self.inner.to_str(), self.max_length)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; never a special one, whatever the text. DataError on a lone surrogate."""
        try:
            return self.inner.encode(text, add_special_tokens=False).ids
        except TypeError:
            utf8(text)  # says what is wrong with it
            raise

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """As ``encode``, for many texts on all cores."""
        try:
            return [found.ids for found in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            for text in texts:
                utf8(text)
            raise

    def document(self, text: str) -> list[int]:
        """``<|begin|>``, the ids of ``text``, ``<|end|>``."""
        return [self.begin, *self.encode(text), self.end]

    def prompt(self, text: str) -> list[int]:
        """``<|begin|>`` and the ids of ``text``: what a model continues."""
        return [self.begin, *self.encode(text)]

    def around(self, text: str, pair: str | None = None, *, longest: int | None = None) -> tuple[list[int], list[int]]:
        """The ids and the segments (0, 1) of a text, or of a pair of texts, as an encoder reads them.

        Where ``[CLS]`` and ``[SEP]`` are reserved, ``[CLS] text [SEP] pair [SEP]``; else each laid out as a document.
        ``longest`` cuts ends (``shorten``), so that with the tokens around it all has at most so many.
        """
        ids, (begin, end) = self.encode(text), self.edges
        others = [] if pair is None else self.encode(pair)
        if longest is not None:
            extra = 2 if pair is None else 3 if self.classifies else 4
            first_size, second_size = shorten(len(ids), len(others), longest - extra)
            ids, others = ids[:first_size], others[:second_size]
        first = [begin, *ids, end]
        second = [] if pair is None else [*([] if self.classifies else [begin]), *others, end]
        return first + second, [0] * len(first) + [1] * len(second)

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """The text of ``ids``; bytes that are no UTF-8 become U+FFFD. Special tokens are left out, or named."""
        found = []
        for id in _plain(ids):
            piece = self.token_bytes(id)
            found.append(self.names[id].encode() if special and id in self.names else piece)
        return b"".join(found).decode("utf-8", errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """The exact bytes of one token, ``b""`` for a special one. ModelError when there is no such id."""
        if not 0 <= id < self.size:
            raise ModelError("tokenize.unknown-id", id=id, last=self.size - 1)
        return self._bytes[id]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        r"""Each token for a reader: its text, bytes that are no character as ``\xc3``, special tokens by name."""
        return [
            self.names.get(id) or self.token_bytes(id).decode("utf-8", errors="backslashreplace") for id in _plain(ids)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the ids: vocabulary, merges, splitting and special tokens. 32 hex digits."""
        return fingerprint_of(self.inner)

    def save(self, folder: Path, *, max_length: int | None = None, segments: bool = False) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, the chat template in it.

        ``max_length`` is the model's context in tokens; without it, what the tokenizer was loaded with. ``segments``:
        the model reads which text of a pair a token belongs to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TOKENIZER_FILE, self.inner.to_str(pretty=True))
        config = self._config(max_length or self.max_length)
        config |= {"model_input_names": list(SEGMENTED)} if segments else {}
        write_atomically(folder / CONFIG_FILE, json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a folder that ``save`` wrote, or of any with the same special tokens. Else ModelError."""
        path = Path(folder) / TOKENIZER_FILE
        try:
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ModelError("tokenize.no-file", path=path) from None
        except Exception as error:  # the library raises bare Exception for whatever it cannot parse
            raise ModelError("tokenize.bad-file", path=path, reason=error) from None
        return cls(inner, max_length=_max_length(Path(folder) / CONFIG_FILE), where=str(path))

    def _config(self, max_length: int | None) -> dict[str, Any]:
        held = [name for _, name in sorted(self.names.items())]
        roles = {"bos_token": BEGIN, "eos_token": END, "pad_token": PAD}
        masks = [name for name in MASKS if name in held]
        roles |= {"mask_token": masks[0]} if masks else {}
        roles |= {"cls_token": CLASSIFIER, "sep_token": SEPARATOR} if self.classifies else {}
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **roles,
            "additional_special_tokens": [name for name in held if name not in roles.values()],
            "clean_up_tokenization_spaces": False,
            "chat_template": chat_template(self.names.values()),
        }
        return config if max_length is None else {**config, "model_max_length": max_length}


def shorten(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts are kept where they have ``room`` together: the longer one loses its last token
    first, the second of two equals (Devlin et al. 2019, in the authors' code)."""
    room = max(0, room)
    if first + second <= room:
        return first, second
    less = min(first, second)
    if less <= room // 2:
        return (less, room - less) if first <= second else (room - less, less)
    return room - room // 2, room // 2


def fingerprint_of(inner: tokenizers.Tokenizer) -> str:
    """A hash of what decides the ids: vocabulary, merges, splitting and special tokens. 32 hex digits."""
    whole = json.loads(inner.to_str())
    what = {part: whole[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")}
    return hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=16).hexdigest()


def byte_characters() -> dict[str, int]:
    """GPT-2's printable character of each byte -> the byte.

    Bytes 33-126, 161-172 and 174-255 stand for themselves; the other 68, in increasing order, are U+0100, U+0101 …
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{chr(byte): byte for byte in plain}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


def utf8(text: str) -> bytes:
    """The bytes of ``text``; DataError, with the place, where it holds half of a UTF-16 pair, which has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        character = f"U+{ord(text[error.start]):04X}"
        raise DataError("tokenize.lone-surrogate", character=character, at=error.start) from None


def _again(text: str, max_length: int | None) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text), max_length=max_length)


def _special_names(inner: tokenizers.Tokenizer, where: str) -> dict[int, str]:
    """Special id -> name; ModelError names those of ``SPECIAL`` that are missing."""
    names = {id: token.content for id, token in inner.get_added_tokens_decoder().items() if token.special}
    missing = [name for name in SPECIAL if name not in names.values()]
    if missing:
        raise ModelError("tokenize.missing-special", where=where, names=", ".join(missing))
    return names


def _bytes_of_tokens(inner: tokenizers.Tokenizer, special: dict[int, str], where: str) -> list[bytes]:
    """The bytes of every id; ModelError when an entry is not spelt in GPT-2's characters, or a byte has no entry."""
    table = byte_characters()
    found = [b""] * inner.get_vocab_size()
    seen: set[bytes] = set()
    added = {id: token.content for id, token in inner.get_added_tokens_decoder().items()}
    for piece, id in inner.get_vocab().items():
        if id in special:
            continue
        if id in added:  # spelt as in a text
            found[id] = piece.encode()
            continue
        try:
            found[id] = bytes(table[character] for character in piece)
        except (KeyError, IndexError):
            raise ModelError("tokenize.not-byte-level", where=where, piece=piece, id=id) from None
        seen.add(found[id])
    for byte in range(256):
        if bytes([byte]) not in seen:
            raise ModelError("tokenize.missing-byte", where=where, byte=f"0x{byte:02X}")
    return found


def _max_length(path: Path) -> int | None:
    """The context length in a tokenizer_config.json, or None where there is no file or no figure."""
    if not path.exists():
        return None
    try:
        length = json.loads(path.read_text(encoding="utf-8")).get("model_max_length")
    except (ValueError, AttributeError) as error:
        raise ModelError("tokenize.bad-file", path=path, reason=error) from None
    # Other tools write 1e30 for "no limit".
    return length if isinstance(length, int) and 0 < length < 10**12 else None


def _plain(ids: Any) -> Iterable[int]:
    """Python integers from a list, an array or a tensor."""
    return ids.tolist() if hasattr(ids, "tolist") else ids
