"""The CUDA engine: it launches the kernels of `kernels/`. `engine` is the way in; the package alone loads nothing."""
