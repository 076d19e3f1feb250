"""Checks against what is known exactly."""
