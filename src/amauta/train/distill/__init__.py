"""A small model that learns from a large one: from what it says of texts, what it writes, or how it reads."""
