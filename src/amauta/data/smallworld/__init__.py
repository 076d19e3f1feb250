"""A made-up Andean community with known answers: its facts, its texts and their exact probabilities (X14).

``world`` draws the facts from a seed, ``grammar`` holds the machinery of exact log-probabilities, ``documents`` the
kinds of documents, ``tasks`` what is asked about them, ``write`` the files. The words stand in ``lexicon.toml``.
"""
