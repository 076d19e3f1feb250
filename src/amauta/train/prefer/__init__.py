"""Learning from preferences without a reward model: pairs of answers, or answers that are wanted or not."""
