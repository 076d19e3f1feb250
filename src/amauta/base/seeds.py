"""Seeds: one number from the user, an independent one for every purpose, none of them global."""

import hashlib


def derive(seed: int, *purpose: object) -> int:
    """A 63-bit seed for one purpose, a fixed function of ``seed`` and the purpose's words.

    ``derive(7, "shuffle", epoch)`` gives the same number on every machine and in every process, so a stream of random
    choices can be made again from any step without having run the steps before it.
    """
    words = "\x1f".join([str(seed), *(str(word) for word in purpose)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1
