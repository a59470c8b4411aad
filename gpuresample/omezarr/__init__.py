"""Pyramids on disk as OME-Zarr, written block by block."""
