"""Language models: their specs, the one transformer core, n-grams, counts, and the layouts of other libraries."""
