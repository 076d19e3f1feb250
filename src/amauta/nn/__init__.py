"""The parts of a transformer: norms, positions, attention, cache, feed-forward, block, initialisation."""
