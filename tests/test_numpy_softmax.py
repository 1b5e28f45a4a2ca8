"""k = 1, a plain softmax, whose derivatives need nothing but a: against the generic core in float64."""

import numpy as np
import pytest

import gumbeltopk as gt
from gumbeltopk._generic import relaxed_topk as generic

TOLERANCES = {"float32": 1e-6, "float64": 1e-13}


@pytest.fixture(autouse=True, params=["numpy", "numba"])
def loops(request):
    """NumPy's passes, and the compiled loops."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="numba, the extra `numba`, is not installed")
        gt.use_numba(True)
    yield
    gt.use_numba(None)


def rows_of_keys(rng, t):
    """Plain ones, a gap of 30 t, ties, a large offset, items of zero weight."""
    keys = t * rng.gumbel(size=(6, 40))
    keys[1, 3] = keys[1].max() + 30.0 * t
    keys[2, 5:9] = keys[2].max()
    keys[3] += 100.0
    keys[4, ::3] = -np.inf
    keys[5, 1:] = -np.inf
    return keys


def in_float64(keys, t, cotangent, key_tangent, dt):
    """(key gradient, temperature gradient, tangent) by the generic core."""
    temperature = np.asarray([[t]])
    with np.errstate(all="ignore"):
        result = generic.forward(keys, temperature, 1.0 / t, 1, "direct", False, True, np)
        gradient, by_t = generic.vjp(result.trajectory, result.form, 1.0 / t, 1, False, cotangent, True, np)
        tangent = generic.jvp(result.trajectory, result.form, 1.0 / t, 1, False, key_tangent, np.asarray([[dt]]), np)
    return gradient, by_t, tangent


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("t", [0.05, 0.5, 1.0, 4.0])
def test_derivatives_of_a_softmax(dtype, t):
    rng = np.random.default_rng(5)
    keys = rows_of_keys(rng, t).astype(dtype)
    cotangent, key_tangent = rng.normal(size=(2, *keys.shape)).astype(dtype)
    _, residuals = gt.relaxed_topk.fwd(keys, 1, temperature=t)
    gradient, by_t = gt.relaxed_topk.vjp(residuals, cotangent, wrt=("keys", "temperature"))
    tangent = gt.relaxed_topk.jvp(residuals, key_tangent, 0.3)
    wide = [each.astype(np.float64) for each in (keys, cotangent, key_tangent)]
    exact = in_float64(wide[0], t, wide[1], wide[2], 0.3)
    for found, expected in ((gradient, exact[0]), (tangent, exact[2])):
        assert found.dtype == dtype
        errors = np.linalg.norm(found - expected, axis=1)
        assert (errors <= TOLERANCES[dtype] * np.linalg.norm(expected, axis=1) + 1e-30).all()
    assert abs(by_t - exact[1].sum()) <= 10 * TOLERANCES[dtype] * np.abs(exact[1]).sum()


def test_an_offset_of_the_cotangent_does_not_matter():
    rng = np.random.default_rng(6)
    keys, cotangent = rng.normal(size=(2, 3, 500)).astype(np.float32)
    cotangent = np.round(1024 * cotangent) / 1024  # so that adding the offset is exact
    _, residuals = gt.relaxed_topk.fwd(keys, 1)
    plain, shifted = (gt.relaxed_topk.vjp(residuals, cotangent + offset) for offset in np.float32([0.0, 4096.0]))
    np.testing.assert_allclose(shifted, plain, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rows_have_temperatures_of_their_own(dtype):
    rng = np.random.default_rng(7)
    keys, cotangent = rng.normal(size=(2, 3, 200)).astype(dtype)
    temperature = np.asarray([3.0, 2.3, 1.7], dtype=dtype)
    a, residuals = gt.relaxed_topk.fwd(keys, 1, temperature=temperature)
    gradient = gt.relaxed_topk.vjp(residuals, cotangent)
    for row in range(3):
        exact = np.exp(keys[row].astype(np.float64) / temperature[row])
        exact /= np.sum(exact)
        np.testing.assert_allclose(a[row], exact, rtol=2 * TOLERANCES[dtype])
        centred = cotangent[row] - np.sum(exact * cotangent[row])
        error = np.linalg.norm(gradient[row] - exact * centred / temperature[row])
        assert error <= TOLERANCES[dtype] * np.linalg.norm(exact * centred / temperature[row])


def test_later_changes_of_the_result_do_not_reach_the_derivatives():
    keys = np.asarray([[0.0, 1.0, 2.0]])
    a, residuals = gt.relaxed_topk.fwd(keys, 1)
    before = gt.relaxed_topk.vjp(residuals, np.asarray([[1.0, 0.0, 0.0]]))
    a[...] = 0.0
    assert (gt.relaxed_topk.vjp(residuals, np.asarray([[1.0, 0.0, 0.0]])) == before).all()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("t", [1e30, 1e37, 1e46, 1e200])
def test_a_masked_item_at_any_temperature(dtype, t):
    keys = np.asarray([0.0, 1.0, -np.inf], dtype=dtype)
    for k in (1, 2):
        np.testing.assert_allclose(gt.relaxed_topk(keys, k, temperature=t), [k / 2, k / 2, 0.0], rtol=1e-6)


# --- compiled, in float32 ---------------------------------------------------------------------------


@pytest.fixture
def compiled():
    pytest.importorskip("numba", reason="numba, the extra `numba`, is not installed")
    from gumbeltopk._numba import softmax

    return softmax


def test_the_heaviest_item_at_every_place(compiled):
    """The first of several, in rows that are no multiple of what is looked at together."""
    a = np.random.default_rng(8).random(size=150).astype(np.float32)
    for place in range(150):
        row = a.copy()
        row[place] = row[149] = 2.0
        assert compiled.heaviest_of(row) == place


@pytest.mark.parametrize(
    "numbers", [[-1.0, -3.5, -2.0], [0.0, -0.0, 1e-45], [3e38, -3.4e38, 1.0], [5.0], [-1e-45, -7.0]]
)
def test_the_order_of_floats_is_that_of_their_places(compiled, numbers):
    bits = np.asarray([*numbers, -np.inf], dtype=np.float32).view(np.int32)
    largest, smallest = compiled.largest_place(bits), compiled.smallest_place(bits)
    ends = [np.int32(compiled.in_order(np.int32(place))).view(np.float32) for place in (smallest, largest)]
    np.testing.assert_array_equal(ends, np.float32([min(numbers), max(numbers)]))


@pytest.mark.parametrize(("gap", "moderate"), [(31.9, True), (32.1, False)])
@pytest.mark.parametrize("masked", [False, True])
def test_rows_with_large_gaps_are_left_to_the_careful_form(compiled, gap, moderate, masked):
    """In the last row of a block; e^-32 comes out to 1e-6 either way."""
    keys = np.full((20, 30), 1000.0, dtype=np.float32)
    keys[19, 3] -= np.float32(gap)
    if masked:
        keys[19, 7] = -np.inf
    assert compiled.forward(keys, np.ones(1), np.empty_like(keys), keys[:0]) is moderate
    gt.use_numba(True)
    exact = np.exp(keys.astype(np.float64) - 1000.0)
    np.testing.assert_allclose(gt.relaxed_topk(keys, 1), exact / exact.sum(axis=1, keepdims=True), rtol=2e-6)


def test_the_gradient_of_a_float32_sample_of_one_item():
    """Its a is kept in float64, beside a cotangent in float32; the rows behind are not looked at."""
    rng = np.random.default_rng(9)
    log_weights, noise = rng.normal(size=(2, 50, 8)).astype(np.float32)
    cotangent = np.full((51, 8), np.nan, dtype=np.float32)
    cotangent[:50] = rng.normal(size=(50, 8))
    _, residuals = gt.relaxed_sample.fwd(log_weights, 1, noise=noise)
    a = np.exp(log_weights.astype(np.float64) + noise)
    a /= a.sum(axis=1, keepdims=True)
    wide = cotangent[:50].astype(np.float64)
    exact = a * (wide - (a * wide).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(gt.relaxed_sample.vjp(residuals, cotangent[:50]), exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("k", [1, 3, 20])
def test_arrays_that_may_only_be_read(dtype, k):
    keys = np.random.default_rng(10).normal(size=(6, 700)).astype(dtype)
    expected, kept = gt.relaxed_topk.fwd(keys.copy(), k, method="direct")
    gradient = gt.relaxed_topk.vjp(kept, keys.copy())
    keys.flags.writeable = False
    np.testing.assert_array_equal(gt.relaxed_topk(keys, k, method="direct"), expected)
    _, residuals = gt.relaxed_topk.fwd(keys, k, method="direct")
    np.testing.assert_array_equal(gt.relaxed_topk.vjp(residuals, keys), gradient)
