"""The CPU engine: loops compiled by Numba, in threads. `engine` is the way in; the package alone loads nothing."""
