"""Decoding as one tree: what samplers, beams and thoughts looked at, with exact log-probs and what it cost."""
