"""Reward models: a number for an answer, learned from which of several is the better."""
