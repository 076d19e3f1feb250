"""Prompting: what a model is asked, by which method, and what the answers are worth."""
