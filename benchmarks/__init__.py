"""Parity and speed of gpuresample, measured: `python -m benchmarks.parity`, `.orders`, `make bench`."""
