"""Pages of documentation that are made from what a benchmark measured."""
