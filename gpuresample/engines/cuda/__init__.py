"""The CUDA engine: kernels of the folder `kernels/`, launched. `engine` is the way in; importing this package loads nothing."""
