"""Power sums over tiles of items, and polynomials at them: NumPy's and the compiled loops against float64 sums."""

import importlib.util

import numpy as np
import pytest

from gumbeltopk._numpy.compression import tiles as numpys

HAS_NUMBA = importlib.util.find_spec("numba") is not None
ROUNDING = {"float32": 3e-7, "float64": 1e-14}


@pytest.fixture(params=["numpy", "numba"])
def tiles(request):
    if request.param == "numpy":
        return numpys.NUMPY
    if not HAS_NUMBA:
        pytest.skip("numba, the extra `numba`, is not installed")
    from gumbeltopk._numba.tiles import NUMBA

    return NUMBA


def weights_and_inputs(dtype, smallest, shape=(2, 5000)):
    """Weights down to e^-smallest, some of them 0, and inputs of the items."""
    rng = np.random.default_rng(0)
    v = np.exp(-rng.uniform(0.0, smallest, size=shape)).astype(dtype)
    v[:, ::50] = 0.0
    return v, rng.normal(size=shape).astype(dtype)


def exact_sums(v, degree, g):
    """sum g v^q and sum |g| v^q."""
    v, g = v.astype(np.longdouble), g.astype(np.longdouble)
    powers = np.stack([v**q for q in range(1, degree + 1)], axis=-1)
    return np.sum(g[..., None] * powers, axis=1), np.sum(np.abs(g)[..., None] * powers, axis=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smallest", [1.0, 30.0, 80.0, 600.0])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7, 8, 9, 15])
def test_power_sums(tiles, dtype, smallest, degree):
    v, _ = weights_and_inputs(dtype, smallest)
    exact, _ = exact_sums(v, degree, np.ones_like(v))
    assert np.all(np.abs(tiles.power_sums(v, degree) - exact) <= ROUNDING[dtype] * exact)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smallest", [1.0, 30.0, 80.0, 600.0])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 7, 8, 9, 15])
def test_products(tiles, dtype, smallest, degree):
    v, g = weights_and_inputs(dtype, smallest)
    centre = g[:, :1].copy()
    exact, terms = exact_sums(v, degree, g - centre)
    assert np.all(np.abs(tiles.products(v, degree, g, centre) - exact) <= ROUNDING[dtype] * terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inputs_of_any_size_count_by_their_products(tiles, dtype):
    """Items of small weight and large input, and items of no weight whatever their input."""
    v, g = weights_and_inputs(dtype, 10.0)
    v[:, :2500] *= 1e-8
    g[:, :2500] *= 1e10
    g[v == 0.0] = 1e30
    centre = np.zeros((2, 1), dtype=dtype)
    exact, terms = exact_sums(v, 9, g)
    assert np.all(np.abs(tiles.products(v, 9, g, centre) - exact) <= ROUNDING[dtype] * terms + 1e-7 * terms[:, :1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("degree", [1, 2, 4, 7, 9, 15])
@pytest.mark.parametrize("rows", [1, 3])
def test_polynomials(tiles, dtype, degree, rows):
    rng = np.random.default_rng(1)
    v, g = (rng.uniform(size=(rows, 1500)).astype(dtype) for _ in range(2))
    e, d = rng.normal(size=(2, rows, degree)).astype(dtype)
    centre = rng.uniform(size=(rows, 1)).astype(dtype)
    powers = v[..., None] ** np.arange(1.0, degree + 1.0)
    at_e, at_d = (np.einsum("riq,rq->ri", powers, co) for co in (e, d))
    out = np.empty_like(v)
    tiles.pair(e, d, v, g, centre, out)
    scale = np.einsum("riq,rq->ri", powers, np.abs(e) + np.abs(d))
    assert np.all(np.abs(out - ((g - centre) * at_e + at_d)) <= 2.0 * ROUNDING[dtype] * scale)
    tiles.polynomial(e, v, v)  # in place
    assert np.all(np.abs(v - at_e) <= ROUNDING[dtype] * scale)


def test_a_row_does_not_look_at_its_neighbours(tiles):
    v, g = weights_and_inputs("float32", 5.0)
    together = tiles.products(v, 7, g, g[:, :1])
    alone = [tiles.products(v[row : row + 1], 7, g[row : row + 1], g[row : row + 1, :1]) for row in range(2)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n", [1, 63, 64, 1000, 70_001])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 1.0])
def test_the_keys_above_a_threshold(tiles, n, share):
    keys = np.random.default_rng(2).uniform(size=n).astype("float32")
    keys[n // 2] = -np.inf
    threshold = np.float32(1.0 - share)
    keys[:: max(1, n // 10)] = threshold  # which is not above itself
    assert tiles.above(keys, threshold).tolist() == np.flatnonzero(keys > threshold).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scales", [None, [[0.7], [0.5], [1.1]]])
def test_exponentials_of_rows_and_of_a_part_of_one(tiles, dtype, scales):
    keys = np.random.default_rng(3).uniform(-70.0, 5.0, size=(3, 1001)).astype(dtype)
    keys[0, 0] = -np.inf
    thresholds = np.asarray([[5.0], [4.0], [3.0]], dtype=dtype)
    scales = None if scales is None else np.asarray(scales, dtype=dtype)
    exponents = keys - thresholds if scales is None else (keys - thresholds) * scales
    exact = np.exp(exponents.astype(np.float64))
    tolerance = 1e-6 if dtype == "float32" else 1e-13
    for rows, threshold in ((slice(None), thresholds), (slice(1, 2), thresholds[1, 0])):
        out = np.empty_like(keys[rows])
        tiles.exponentials(keys[rows], threshold, None if scales is None else scales[rows], out)
        assert np.all(np.abs(out - exact[rows]) <= tolerance * exact[rows])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smallest", [30.0, 80.0])
def test_no_power_is_subnormal(dtype, smallest):
    """Which is slow, and nothing else."""
    v, _ = weights_and_inputs(dtype, smallest if dtype == "float32" else 8.0 * smallest)
    for degree in (3, 9, 15):
        powers = np.stack(numpys._powers(v, degree, np.empty(((degree + 1) // 2, *v.shape), dtype=dtype)))
        assert not np.any((powers > 0.0) & (powers < np.finfo(dtype).smallest_normal))


@pytest.mark.skipif(not HAS_NUMBA, reason="numba, the extra `numba`, is not installed")
def test_compiled_exponential_of_float32():
    """Everywhere to 1e-7; 0 where it is no normal number, NaN of NaN."""
    from gumbeltopk._numba.tiles import NUMBA

    x = np.concatenate([np.linspace(-87.3, 87.9, 400_001), [0.0, -0.0, 1e-30, -1e-30]]).astype(np.float32)[None]
    out = np.empty_like(x)
    NUMBA.exponentials(x, np.float32(0.0), None, out)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(out / exact - 1.0)) <= 1e-7
    special = np.asarray([[-np.inf, -1e30, -88.0, 1e30, np.nan]], dtype=np.float32)
    out = np.empty_like(special)
    NUMBA.exponentials(special, np.float32(0.0), None, out)
    assert out[0, :3].tolist() == [0.0, 0.0, 0.0]
    assert out[0, 3] > 1e38
    assert np.isnan(out[0, 4])
