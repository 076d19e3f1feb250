"""Answers of a given form: JSON of a schema, regular expressions, choices, CSV, grammars."""
