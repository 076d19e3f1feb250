"""Search: continuations that are looked for, not drawn one token at a time."""
