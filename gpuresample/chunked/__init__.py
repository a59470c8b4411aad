"""Arrays larger than memory: dask and zarr arrays, block by block."""
