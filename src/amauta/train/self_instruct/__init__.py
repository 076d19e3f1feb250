"""Instructions that a model makes for itself, from a few that people wrote (Wang et al. 2022, arXiv 2212.10560)."""
