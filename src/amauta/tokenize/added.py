"""New tokens in a tokenizer that is there already, and where in a text each of its tokens stands."""

from collections.abc import Sequence

import tokenizers
from tokenizers import AddedToken

from amauta.base.errors import ModelError
from amauta.tokenize.either import AnyTokenizer
from amauta.tokenize.foreign import ForeignTokenizer
from amauta.tokenize.tokenizer import Tokenizer

START, DELIM, EXTRACT = "[START]", "[DELIM]", "[EXTRACT]"  # of fine-tuning in GPT-1's manner (Radford et al. 2018)


def with_tokens(
    tokenizer: AnyTokenizer, names: Sequence[str], *, special: bool = True
) -> tuple[AnyTokenizer, list[int], int]:
    """A tokenizer that knows the tokens ``names`` too, their ids, and how many of them are new.

    New ones have the last ids. ``special``: no text gives them; else they are found wherever a text spells them.
    ModelError for a name that is an ordinary entry of the vocabulary already.
    """
    inner = tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
    known = {name: id for id, name in tokenizer.names.items()}
    for name in names:
        if name not in known and inner.token_to_id(name) is not None:
            raise ModelError("finetune.token-taken", name=name, id=inner.token_to_id(name))
    new = [name for name in names if name not in known]
    added = [AddedToken(name, special=special, normalized=False) for name in new]
    (inner.add_special_tokens if special else inner.add_tokens)(added)
    if isinstance(tokenizer, Tokenizer):
        made: AnyTokenizer = Tokenizer(inner, max_length=tokenizer.max_length)
    else:
        further = list(tokenizer.config.get("additional_special_tokens") or [])
        config = {**tokenizer.config} | ({"additional_special_tokens": [*further, *new]} if special else {})
        made = ForeignTokenizer(
            inner, config, generation=tokenizer.generation, template=tokenizer._template, where=tokenizer.where
        )
    return made, [inner.token_to_id(name) for name in names], len(new)


def places(tokenizer: AnyTokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of ``text`` and the characters (from, to) that each stands for, without the white space before a word.

    ModelError where the ids are not those of ``encode``: a text that spells a special token.
    """
    found = tokenizer.inner.encode(text, add_special_tokens=False)
    if found.ids != tokenizer.encode(text):
        raise ModelError("finetune.no-places", text=text[:60])
    trimmed: list[tuple[int, int]] = []
    for start, end in found.offsets:
        while start < end and text[start].isspace():
            start += 1
        trimmed.append((start, end))
    return found.ids, trimmed
