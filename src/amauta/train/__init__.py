"""The one loop, and the methods that run on it."""
