"""What measures gpuresample from outside: cases, peers, times, bounds. Serves `benchmarks/`, `verify` and `bench`."""
