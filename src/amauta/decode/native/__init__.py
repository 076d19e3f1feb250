"""A decoding step in C++, for processors: ``step.cpp``, how it is compiled (``build.py``) and called (``step.py``)."""
