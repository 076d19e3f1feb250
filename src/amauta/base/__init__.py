"""The ground: errors, messages, names and seeds. It imports nothing of the package.

The letters of shapes are the same everywhere: B batch, T time, S cache length, V vocabulary, D width,
H query heads, G key/value heads, K head width, F feed-forward width, L layers, R adapter rank.
"""
