"""The special tokens, the roles of a dialogue, and who may speak after whom.

A special token is an entry of the vocabulary that no text can produce: only the code that lays out documents and
dialogues puts it there. The same names typed by a user are ordinary bytes. All are distinct, so padding is never an
end: a model that learns from a padded batch still learns when to stop.
"""

import re
from collections.abc import Iterable

from amauta.base.errors import ConfigError

PAD = "<|pad|>"
BEGIN = "<|begin|>"
END = "<|end|>"
TURN = "<|turn|>"

# What encoders and encoder-decoders need beside those, by the manner of the model that is to be trained; T5 has a
# hundred sentinels.
MASKS = ("[MASK]", "<mask>")
CLASSIFIER, SEPARATOR = "[CLS]", "[SEP]"
SENTINEL = "<extra_id_{}>"
FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "albert", "electra"), (CLASSIFIER, SEPARATOR, MASKS[0])),
    **dict.fromkeys(("roberta", "bart"), MASKS[1:]),
    "t5": tuple(SENTINEL.format(n) for n in range(100)),
}

# Role of a message -> the token that opens it.
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>", "tool": "<|tool|>"}

# Ids 0..7, in this order, in every tokenizer that is trained here.
SPECIAL = (PAD, BEGIN, END, TURN, *ROLES.values())

# Role of a message -> the roles that the next one may have; "" stands before the first message. The renderer and the
# Jinja template are both made from this table.
FOLLOWS: dict[str, tuple[str, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}

# The brackets make sure that no split of a text gives the whole name as one piece, so that no merge can spell it, and
# that two names side by side, or text beside a name, never read as a third one.
_FORM = re.compile(r"<\|[A-Za-z]\w*\|>|<[A-Za-z]\w*>|\[[A-Za-z]\w*\]", re.ASCII)


def special_tokens(reserve: Iterable[str] = ()) -> tuple[str, ...]:
    """The eight of ``SPECIAL``, then the names in ``reserve`` (``"[MASK]"``, ``"<extra_id_0>"``), in order.

    Raises ConfigError when a reserved name has no brackets round a word or is there twice.
    """
    names = [*SPECIAL]
    for name in reserve:
        if not _FORM.fullmatch(name):
            raise ConfigError("tokenize.bad-special", name=name)
        if name in names:
            raise ConfigError("tokenize.special-twice", name=name)
        names.append(name)
    return tuple(names)
