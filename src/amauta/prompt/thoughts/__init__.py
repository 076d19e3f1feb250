"""Searches over thoughts: trees, graphs, Monte Carlo, and the rewards of single steps that such a search measures."""
