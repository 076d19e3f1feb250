"""Speculative decoding: a cheap draft guesses tokens ahead, the model checks them all in one pass, and what comes out
is distributed exactly as if the model had written alone.

``settings.py`` what may be asked for, ``drafts.py`` who guesses, ``reader.py`` reading on and forgetting, ``verify.py``
the rule that keeps it exact, ``generate.py`` the loop. Imports nothing: the settings are read without torch.
"""
