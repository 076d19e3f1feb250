"""What an answer is worth: by its record, by a pattern, by its length, by a model, by tests that it must pass."""
