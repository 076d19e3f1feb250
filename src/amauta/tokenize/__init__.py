"""Tokenizers: special tokens, training, encoding and decoding, fertility, and the rendering of dialogues."""
