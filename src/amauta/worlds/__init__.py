"""Worlds so small that every answer is known exactly: a cat's grid, and answers that can all be listed."""
