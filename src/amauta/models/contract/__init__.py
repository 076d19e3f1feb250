"""The log-prob contract: what a model says of fixed probes is recorded, and compared after every change of it."""
