"""Geometry and weights: from grids to tap tables and works. Pure, float64, never a voxel; NumPy alone is imported."""
