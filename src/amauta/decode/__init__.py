"""From logits to text: filters on logits, sampling, stopping."""
