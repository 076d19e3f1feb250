"""N-gram language models, from text to scores.

``vocabulary.py`` makes ids of words and characters, ``counting.py`` counts them (``distinct.py`` sorts, ``room.py``
says what stays in memory), ``trie.py`` holds the n-grams and finds them (``index.py``), ``estimate.py`` smooths the
counts (``kneser_ney.py``: what that smoothing takes and from which counts), ``model.py`` is the model, ``storage.py``
its folder, ``arpa_write.py`` and ``arpa_read.py`` the format that other programs read.
"""

from amauta.models.ngram.model import MODEL_TYPE, NGram

__all__ = ["MODEL_TYPE", "NGram"]
