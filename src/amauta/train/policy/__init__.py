"""Policy optimisation: answers are sampled, rewarded, and made likelier or not; a method is a set of choices."""
