"""ITK's two pyramid filters, which SimpleITK does not have."""

import numpy as np
import pytest

import gpuresample as gr

itk = pytest.importorskip("itk")
# SWIG's types have no module, of which Python warns.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type")

# ITK stores float32 after every axis, and its linear interpolation is made in another order.
BOUND = 2e-6
GEOMETRIES = {
    "anisotropic": ((24, 33, 40), (0.7, 1.1, 2.3), (-120.3, 7.7, 31.1), 0.0),
    "odd": ((17, 22, 21), (1.0, 1.0, 2.0), (0.0, 0.0, 0.0), 0.0),
    "turned": ((20, 24, 28), (0.8, 0.9, 1.3), (5.0, -6.0, 7.0), 0.3),
}
# Coarsest first, as ITK has them: a chain of multiples, and three that are none.
SCHEDULES = [
    None, [[4, 4, 2], [2, 2, 1], [1, 1, 1]], [[4, 2, 2], [2, 1, 1]], [[6, 6, 3], [4, 2, 1]],
    [[6, 3, 2], [4, 3, 2], [1, 1, 1]],
]  # fmt: skip
FILTERS = {"itk": "MultiResolutionPyramidImageFilter", "itk_recursive": "RecursiveMultiResolutionPyramidImageFilter"}


def pair(name):
    """The same noise as a `Volume` and as an ITK image."""
    shape, spacing, origin, angle = GEOMETRIES[name]
    array = (1000 * np.random.default_rng(len(name)).standard_normal(shape)).astype(np.float32)
    c, s = np.cos(angle), np.sin(angle)
    direction = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    image = itk.image_from_array(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(itk.matrix_from_array(direction))
    return gr.Volume(array, spacing, origin, direction.ravel()), image


def itk_levels(image, kind, schedule):
    """ITK's levels, finest first."""
    pyramid = getattr(itk, FILTERS[kind])[type(image), type(image)].New()
    pyramid.SetInput(image)
    if schedule is None:
        pyramid.SetNumberOfLevels(3)
    else:
        pyramid.SetNumberOfLevels(len(schedule))
        table = itk.Array2D[itk.UI](len(schedule), 3)
        for row, factors in enumerate(schedule):
            for column, factor in enumerate(factors):
                table.SetElement(row, column, factor)
        pyramid.SetSchedule(table)
    pyramid.Update()
    given = pyramid.GetSchedule()
    if schedule is not None:
        assert [[given.GetElement(r, c) for c in range(3)] for r in range(len(schedule))] == schedule
    return [pyramid.GetOutput(level) for level in reversed(range(pyramid.GetNumberOfLevels()))]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_itk_pyramids(geometry, kind, schedule):
    volume, image = pair(geometry)
    theirs = itk_levels(image, kind, schedule)
    asked = {"levels": 3} if schedule is None else {"schedule": schedule[::-1]}
    ours = gr.pyramid(volume, kind=kind, **asked)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        expected = itk.array_from_image(b)
        assert a.array.shape == expected.shape
        np.testing.assert_allclose(a.spacing, tuple(b.GetSpacing()), rtol=1e-12)
        np.testing.assert_allclose(a.origin, tuple(b.GetOrigin()), rtol=1e-12, atol=1e-12)
        assert np.abs(a.array - expected).max() <= BOUND * np.ptp(volume.array)


def test_integers_are_the_float_levels_rounded():
    volume, _ = pair("odd")
    whole = gr.Volume(np.rint(volume.array).astype(np.int16), volume.spacing)
    floats = gr.Volume(whole.array.astype(np.float32), volume.spacing)
    for kind in FILTERS:
        for a, b in zip(gr.pyramid(whole, 3, kind=kind), gr.pyramid(floats, 3, kind=kind), strict=True):
            np.testing.assert_array_equal(a.array, np.rint(b.array).astype(np.int16))
