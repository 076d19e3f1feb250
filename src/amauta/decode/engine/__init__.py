"""Many requests in one running batch: who runs where (``scheduler.py``), and the work itself (``engine.py``)."""
