"""Pure equations on tensors, one family a file; each imports nothing of the package."""
