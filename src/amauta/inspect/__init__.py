"""Looking into models: what they gave to the tokens of a text, and where they looked."""
