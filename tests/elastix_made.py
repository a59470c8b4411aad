"""Transform parameter files of elastix, made of SimpleITK's transforms."""

import numpy as np


def parameters(grid, transform, name, initial="NoInitialTransform", **more):
    """A transform of SimpleITK's as elastix 5.3 writes it, directions by columns; `grid` is a `naive.Geometry`."""
    fixed, d = transform.GetFixedParameters(), transform.GetDimension()
    entries = {
        "FixedImageDimension": (d,), "MovingImageDimension": (d,), "HowToCombineTransforms": ('"Compose"',),
        "InitialTransformParameterFileName": (f'"{initial}"',), "NumberOfParameters": (len(transform.GetParameters()),),
        "Transform": (f'"{name}"',), "TransformParameters": transform.GetParameters(),
        "UseDirectionCosines": ('"true"',), "Size": grid.size, "Spacing": grid.spacing, "Origin": grid.origin,
        "Direction": np.transpose(grid.direction).ravel(),
    }  # fmt: skip
    if name == "BSplineTransform":
        columns = np.reshape(fixed[3 * d :], (d, d)).T.ravel()
        entries |= {
            "GridSize": [int(n) for n in fixed[:d]], "GridIndex": (0,) * d, "GridOrigin": fixed[d : 2 * d],
            "GridSpacing": fixed[2 * d : 3 * d], "GridDirection": columns,
            "BSplineTransformSplineOrder": (transform.GetOrder(),), "UseCyclicTransform": ('"false"',),
        }  # fmt: skip
    elif fixed:
        entries["CenterOfRotationPoint"] = fixed[:d]
        if name == "EulerTransform" and d == 3:
            entries["ComputeZYX"] = ('"true"' if fixed[3] else '"false"',)
    entries |= more
    return "\n".join(
        f"({key} {' '.join(v if isinstance(v, str) else repr(float(v)).removesuffix('.0') for v in values)})"
        for key, values in entries.items() if values is not None
    ) + "\n\n// ResampleInterpolator specific\n(FinalBSplineInterpolationOrder 3)\n"  # fmt: skip
