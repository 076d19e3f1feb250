"""Models with less in them: weights set to zero, heads, layers and feed-forward neurons taken out."""
