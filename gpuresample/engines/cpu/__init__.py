"""The CPU engine: loops compiled by Numba, in threads. `engine` is the way in; importing this package loads nothing."""
