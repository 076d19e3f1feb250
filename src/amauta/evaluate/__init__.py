"""Measurement: what a model knows, and how sure one can be of that."""
