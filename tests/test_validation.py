"""Bad input is a typed error that names the argument, the value, its index or row, and what to do. Nothing passes."""

from __future__ import annotations

import math
import re
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gumbeltopk as gt
from gumbeltopk import _array_api as api

REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=150)

# Every function that takes log-weights or keys, and every one that takes weights: (array, k, ...) -> anything.
LOG_CALLS = {
    "gumbel_keys": lambda x, k=1, **options: gt.gumbel_keys(x, rng=0, **options),
    "log_arrival_times": lambda x, k=1, **options: gt.log_arrival_times(x, rng=0, **options),
    "sample": lambda x, k=1, **options: gt.sample(x, k, rng=0, **options),
    "relaxed_topk": lambda x, k=1, **options: gt.relaxed_topk(x, k, **options),
    "relaxed_topk.fwd": lambda x, k=1, **options: gt.relaxed_topk.fwd(x, k, **options),
    "relaxed_sample": lambda x, k=1, **options: gt.relaxed_sample(x, k, rng=0, **options),
    "relaxed_sample.fwd": lambda x, k=1, **options: gt.relaxed_sample.fwd(x, k, rng=0, **options),
    "ordered_logpmf": lambda x, k=1, **options: gt.ordered_logpmf(x, list(range(k)), **options),
    "ordered_logpmf.fwd": lambda x, k=1, **options: gt.ordered_logpmf.fwd(x, list(range(k)), **options),
    "subset_logpmf": lambda x, k=1, **options: gt.subset_logpmf(x, list(range(k)), **options),
    "subset_logpmf.fwd": lambda x, k=1, **options: gt.subset_logpmf.fwd(x, list(range(k)), **options),
    "PlackettLuce": lambda x, k=1: gt.PlackettLuce(x, k),
    "SubsetDistribution": lambda x, k=1: gt.SubsetDistribution(x, k),
}
WEIGHT_CALLS = {
    "gumbel_keys": lambda x, k=1, **options: gt.gumbel_keys(weights=x, rng=0, **options),
    "log_arrival_times": lambda x, k=1, **options: gt.log_arrival_times(weights=x, rng=0, **options),
    "sample": lambda x, k=1, **options: gt.sample(weights=x, k=k, rng=0, **options),
    "relaxed_sample": lambda x, k=1, **options: gt.relaxed_sample(weights=x, k=k, rng=0, **options),
    "relaxed_sample.fwd": lambda x, k=1, **options: gt.relaxed_sample.fwd(weights=x, k=k, rng=0, **options),
    "PlackettLuce": lambda x, k=1: gt.PlackettLuce(weights=x, k=k),
    "SubsetDistribution": lambda x, k=1: gt.SubsetDistribution(weights=x, k=k),
}
TAKE_K = ("sample", "relaxed_topk", "relaxed_topk.fwd", "relaxed_sample", "PlackettLuce", "SubsetDistribution")
TAKE_AXIS = ("sample", "relaxed_topk", "relaxed_topk.fwd", "relaxed_sample", "relaxed_sample.fwd")
TAKE_TEMPERATURE = ("relaxed_topk", "relaxed_topk.fwd", "relaxed_sample", "relaxed_sample.fwd")
INDEX_CALLS = {
    "k_hot": lambda indices, n, **options: gt.k_hot(indices, n),
    "ordered_logpmf": lambda indices, n, **options: gt.ordered_logpmf(np.zeros(n), indices, **options),
    "subset_logpmf": lambda indices, n, **options: gt.subset_logpmf(np.zeros(n), indices, **options),
    "PlackettLuce.logpmf": lambda indices, n: gt.PlackettLuce(np.zeros(n), 2).logpmf(indices),
    "SubsetDistribution.pmf": lambda indices, n: gt.SubsetDistribution(np.zeros(n), 2).pmf(indices),
}


def argument_of(call: str) -> str:
    return "keys" if call.startswith("relaxed_topk") else "log_weights"


def refused(error: type[Exception], *parts: str):
    """A context that wants this error, with all the parts in its message, in this order and literally."""
    return pytest.raises(error, match="(?s)" + ".*".join(re.escape(part) for part in parts))


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("call", LOG_CALLS)
def test_log_weights_and_keys_that_are_nan_or_infinite(to_xp, call, bad) -> None:
    name = argument_of(call)
    with refused(ValueError, f"{name}[1] = {bad}; pass finite numbers, or -inf for"):
        LOG_CALLS[call](to_xp([0.0, bad, 1.0, math.nan]))
    with refused(ValueError, f"{name}[1, 2] = {bad}; pass finite numbers, or -inf for"):
        LOG_CALLS[call](to_xp([[0.0, -math.inf, 2.0], [1.0, 2.0, bad]], "float32"))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, -(2.0**-149)])
@pytest.mark.parametrize("call", WEIGHT_CALLS)
def test_weights_that_are_nan_infinite_or_negative(to_xp, call, bad) -> None:
    with refused(ValueError, f"weights[1] = {bad}; pass finite numbers that are not negative"):
        WEIGHT_CALLS[call](to_xp([0.0, bad, 1.0, math.nan]))
    with refused(ValueError, f"weights[1, 2] = {bad}; pass finite numbers that are not negative"):
        WEIGHT_CALLS[call](to_xp([[0.0, 1.0, 2.0], [1.0, 0.0, bad]], "float32"))


def test_negative_integer_weights(to_xp) -> None:
    with refused(ValueError, "weights[2] = -3.0; pass finite numbers"):
        gt.sample(weights=to_xp([1, 2, -3]), k=1)


@pytest.mark.parametrize(
    ("call", "axis"),
    [(call, axis) for call in TAKE_AXIS for axis in (0, 1, -1)],
)
def test_the_index_is_that_of_the_array_that_was_passed(to_xp, call, axis) -> None:
    """Whatever axis the items are on."""
    bad = np.ones((3, 4, 2))
    bad[2, 1, 0] = math.nan
    with refused(ValueError, f"{argument_of(call)}[2, 1, 0] = nan"):
        LOG_CALLS[call](to_xp(bad), 1, axis=axis)
    if call in WEIGHT_CALLS:
        with refused(ValueError, "weights[2, 1, 0] = nan"):
            WEIGHT_CALLS[call](to_xp(bad), 1, axis=axis)


special_floats = st.one_of(
    st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e308, math.inf, -math.inf, math.nan]), st.floats(0, 10), st.floats()
)
batches = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=special_floats)


@REPRODUCIBLE
@given(weights=batches, k=st.integers(0, 4), in_logs=st.booleans())
def test_no_array_passes_silently(weights: np.ndarray, k: int, in_logs: bool) -> None:
    """An error that names the first bad entry, or that there are too few items, or else a valid sample."""
    name = "log_weights" if in_logs else "weights"
    good = weights < math.inf if in_logs else (weights >= 0) & (weights < math.inf)
    positive = weights > -math.inf if in_logs else weights > 0
    call = {name: weights, "k": k, "rng": 0}
    if k > weights.shape[-1]:
        with refused(ValueError, f"k = {k} is more than the n = {weights.shape[-1]} items"):
            gt.sample(**call)
    elif not good.all():
        index = ", ".join(str(i) for i in np.argwhere(~good)[0])
        with refused(ValueError, f"{name}[{index}] = "):
            gt.sample(**call)
        with refused(ValueError, f"{name}[{index}] = "):
            gt.gumbel_keys(**{name: weights})
    elif positive.sum(axis=-1).min() < k:
        with refused(ValueError, f"k = {k} is more than the {positive.sum(axis=-1).min()} items of positive weight"):
            gt.sample(**call)
    else:
        rows = gt.sample(**call)
        assert rows.shape == (*weights.shape[:-1], k)
        assert np.all(np.take_along_axis(positive, rows, axis=-1))
        assert np.all(np.diff(np.sort(rows, axis=-1), axis=-1) > 0)


@REPRODUCIBLE
@given(dtype=hnp.scalar_dtypes(), call=st.sampled_from(sorted(WEIGHT_CALLS)))
def test_no_dtype_passes_silently(dtype: np.dtype, call: str) -> None:
    """Half, single and double precision and integers are numbers; nothing else is."""
    array = np.zeros(3, dtype)
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize <= 8):
        WEIGHT_CALLS[call](array, 0)
    else:
        with refused(TypeError, f"weights has dtype {array.dtype}; pass float16, float32, float64 or integers"):
            WEIGHT_CALLS[call](array, 0)


@pytest.mark.parametrize(
    "bad",
    [
        np.asarray([1.0, 2.0], dtype=object),
        [Fraction(1, 2), Fraction(1, 3)],
        [None, 1.0],
        np.asarray([1 + 2j, 0]),
        [1j, 0.0],
        np.asarray([True, False]),
        [True, False],
        np.asarray(["0.5", "0.5"]),
        ["a", "b"],
        b"ab",
        np.asarray(["2020-01-01"], dtype="datetime64[D]"),
        {0.5, 0.25},
        np.zeros(2, dtype=[("w", float)]),
    ],
    ids=lambda bad: type(bad).__name__ + "-" + str(np.asarray(bad).dtype.kind),
)
@pytest.mark.parametrize("call", LOG_CALLS)
def test_what_is_not_a_real_number(call, bad) -> None:
    with refused(TypeError, f"{argument_of(call)} has dtype ", "; pass float16, float32, float64 or integers"):
        LOG_CALLS[call](bad)
    if call in WEIGHT_CALLS:
        with refused(TypeError, "weights has dtype ", "; pass float16, float32, float64 or integers"):
            WEIGHT_CALLS[call](bad)


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="longdouble is float64 here")
@pytest.mark.parametrize("call", LOG_CALLS)
def test_numbers_longer_than_the_library_computes_with(call) -> None:
    with refused(TypeError, f"{argument_of(call)} has dtype {np.dtype(np.longdouble)}; pass float16, float32, float64"):
        LOG_CALLS[call](np.zeros(3, np.longdouble))


@pytest.mark.parametrize("dtype", ["bool", "complex64", "complex128"])
@pytest.mark.parametrize("call", LOG_CALLS)
def test_truth_values_and_complex_numbers_of_every_library(xp, device, call, dtype) -> None:
    bad = xp.ones((3,), dtype=getattr(xp, dtype), device=device)
    with refused(TypeError, f"{argument_of(call)} has dtype ", dtype, "; pass "):
        LOG_CALLS[call](bad)


def test_a_truth_value_is_no_weight() -> None:
    with refused(TypeError, "weights has dtype bool", "a truth value is not a number here; convert it on purpose"):
        gt.sample(weights=np.asarray([True, False, True]), k=1)


@pytest.mark.parametrize(
    "masked",
    [
        np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]),
        np.ma.array([1.0, 2.0, 3.0]),
        [np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]), [1.0, 2.0, 3.0]],
    ],
    ids=["masked", "nothing masked", "list of rows"],
)
@pytest.mark.parametrize("call", LOG_CALLS)
def test_masked_arrays(call, masked) -> None:
    with refused(TypeError, f"{argument_of(call)} is a masked array; fill the masked entries first"):
        LOG_CALLS[call](masked)
    if call in WEIGHT_CALLS:
        with refused(TypeError, "weights is a masked array; fill the masked entries first"):
            WEIGHT_CALLS[call](masked)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("call", LOG_CALLS)
def test_matrices(call) -> None:
    name = argument_of(call)
    with refused(TypeError, f"{name} is a numpy.matrix, which is always 2-D; pass numpy.asarray({name})"):
        LOG_CALLS[call](np.matrix([[1.0, 2.0]]))


@pytest.mark.parametrize("call", LOG_CALLS)
def test_ragged_lists(call) -> None:
    with refused(TypeError, f"{argument_of(call)} cannot be made into an array", "pass a rectangular array"):
        LOG_CALLS[call]([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("call", LOG_CALLS)
def test_numbers_instead_of_arrays(to_xp, call) -> None:
    for number in (1.0, np.float64(1.0), to_xp(1.0)):
        with refused(ValueError, f"{argument_of(call)} is 0-dimensional; "):
            LOG_CALLS[call](number)
        if call in WEIGHT_CALLS:
            with refused(ValueError, "weights is 0-dimensional; "):
                WEIGHT_CALLS[call](number)


@pytest.mark.parametrize("call", WEIGHT_CALLS)
def test_weights_or_log_weights_but_not_both(call) -> None:
    function = {**vars(gt), "relaxed_sample.fwd": gt.relaxed_sample.fwd}[call]
    k = {} if call in ("gumbel_keys", "log_arrival_times") else {"k": 1}
    with refused(TypeError, "pass exactly one of log_weights and weights=; both were given"):
        function(np.zeros(3), weights=np.ones(3), **k)
    with refused(TypeError, "pass exactly one of log_weights and weights=; neither was given"):
        function(**k)


# --- k --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", TAKE_K)
@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (-1, ValueError, "k = -1 is negative; pass a number from 0 to n = 3"),
        (4, ValueError, "k = 4 is more than the n = 3 items; without replacement k is at most n"),
        (2.0, TypeError, "k = 2.0 must be an integer, not float"),
        (np.float64(2), TypeError, "k = np.float64(2.0) must be an integer, not float64"),
        (math.nan, TypeError, "k = nan must be an integer, not float"),
        (True, TypeError, "k = True is a truth value; pass an integer"),
        (np.bool_(True), TypeError, "k = np.True_ is a truth value; pass an integer"),
        ("2", TypeError, "k = '2' must be an integer, not str"),
        (None, TypeError, "k "),
    ],
)
def test_bad_k(to_xp, call, k, error, message) -> None:
    with refused(error, message):
        LOG_CALLS[call](to_xp(np.zeros((2, 3))), k)


@pytest.mark.parametrize("call", [call for call in TAKE_K if call != "sample"])
def test_one_k_for_all_rows(to_xp, call) -> None:
    with refused(TypeError, "k = [1, 2] must be an integer, not list"):
        LOG_CALLS[call](to_xp(np.zeros((2, 3))), [1, 2])


@pytest.mark.parametrize("call", TAKE_K)
def test_integers_of_numpy_are_numbers_of_items(to_xp, call) -> None:
    for k in (np.int64(2), np.uint8(2), np.asarray(2)):
        LOG_CALLS[call](to_xp(np.zeros(3)), k)


@pytest.mark.parametrize("call", ["sample", "relaxed_sample", "PlackettLuce", "SubsetDistribution"])
def test_k_that_was_forgotten(call) -> None:
    with refused(TypeError, "k is missing: pass the number of items"):
        getattr(gt, call)(weights=np.ones(3))


@pytest.mark.parametrize("call", TAKE_K)
def test_more_items_than_positive_weights_in_a_row(to_xp, call) -> None:
    name = argument_of(call)
    what = "finite entries" if name == "keys" else "items of positive weight"
    with refused(ValueError, f"k = 3 is more than the 2 {what} of {name}; lower k or "):
        LOG_CALLS[call](to_xp([0.0, -math.inf, 1.0]), 3)
    if call in WEIGHT_CALLS:
        with refused(ValueError, "k = 1 is more than the 0 items of positive weight of weights; lower k or give more"):
            WEIGHT_CALLS[call](to_xp([0.0, -0.0, 0.0]), 1)


@pytest.mark.parametrize("call", TAKE_K)
def test_more_items_than_positive_weights_lists_the_rows(to_xp, call) -> None:
    name = argument_of(call)
    logs = np.zeros((3, 4))
    logs[0, 1] = logs[2, :3] = -math.inf
    with refused(ValueError, "k = 2 is more than the 1 ", f" in rows [2] of {name}"):
        LOG_CALLS[call](to_xp(logs), 2)
    with refused(ValueError, "k = 4 is more than the 1 ", f" in rows [0, 2] of {name}"):
        LOG_CALLS[call](to_xp(logs), 4)
    with refused(ValueError, "k = 2 is more than the 1 ", f" in rows [(0, 2), (1, 2)] of {name}"):
        LOG_CALLS[call](to_xp(np.stack([logs, logs])), 2)
    if call in TAKE_AXIS:
        with refused(ValueError, "k = 2 is more than the 1 ", f" in rows [2] of {name}"):
            LOG_CALLS[call](to_xp(logs.T), 2, axis=0)


def test_many_short_rows_are_not_all_listed(to_xp) -> None:
    with refused(ValueError, "k = 1 is more than the 0 ", "in rows [0, 1, 2, 3, 4, 5, 6, 7] ... of weights"):
        gt.sample(weights=to_xp(np.zeros((100, 3))), k=1)


# --- axis, shape, n, start ------------------------------------------------------------------------


@pytest.mark.parametrize("call", TAKE_AXIS)
@pytest.mark.parametrize(
    ("axis", "error", "message"),
    [
        (2, ValueError, "axis = 2 is out of range for NAME of 2 dimensions; pass a number from -2 to 1"),
        (-3, ValueError, "axis = -3 is out of range for NAME of 2 dimensions"),
        (1.0, TypeError, "axis = 1.0 must be an integer, not float"),
        (True, TypeError, "axis = True is a truth value"),
        (None, TypeError, "axis = None must be an integer"),
        ((0, 1), TypeError, "axis = (0, 1) must be an integer"),
    ],
)
def test_bad_axes(to_xp, call, axis, error, message) -> None:
    with refused(error, message.replace("NAME", argument_of(call))):
        LOG_CALLS[call](to_xp(np.zeros((2, 3))), 1, axis=axis)


@pytest.mark.parametrize("distribution", [gt.PlackettLuce, gt.SubsetDistribution])
@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        (-1, ValueError, "shape = (-1,) has a negative length"),
        ((2, -1), ValueError, "shape = (2, -1) has a negative length"),
        (2.0, TypeError, "shape = 2.0 must be an integer"),
        (True, TypeError, "shape = True is a truth value"),
        ("2", TypeError, "shape = '2' must be an integer"),
    ],
)
def test_bad_shapes_of_samples(distribution, shape, error, message) -> None:
    with refused(error, message):
        distribution(np.zeros(3), 1).sample(shape)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (-1, ValueError, "n = -1 is negative; pass the number of items"),
        (3.0, TypeError, "n = 3.0 must be an integer"),
        (True, TypeError, "n = True is a truth value"),
        (None, TypeError, "n = None must be an integer"),
    ],
)
def test_bad_numbers_of_items(n, error, message) -> None:
    with refused(error, message):
        gt.k_hot([0], n)


# --- temperature and noise ------------------------------------------------------------------------


BAD_TEMPERATURES = pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf, -math.inf, 0])
POSITIVE_AND_FINITE = "must be positive and finite; for exact top-k use `sample` and `k_hot`"


@BAD_TEMPERATURES
@pytest.mark.parametrize("call", TAKE_TEMPERATURE)
def test_a_temperature_that_is_not_positive_and_finite(to_xp, call, bad) -> None:
    keys = to_xp(np.zeros((2, 3)))
    for check in (True, False):  # on a Python number the look is free
        with refused(ValueError, f"temperature = {float(bad)} {POSITIVE_AND_FINITE}"):
            LOG_CALLS[call](keys, 1, temperature=bad, check=check)
    with refused(ValueError, f"temperature[1] = {float(bad)} {POSITIVE_AND_FINITE}"):
        LOG_CALLS[call](keys, 1, temperature=[1.0, float(bad)])


@BAD_TEMPERATURES
@pytest.mark.parametrize(
    "call",
    TAKE_TEMPERATURE,
)
def test_arrays_of_temperatures_that_are_not_positive_and_finite(to_xp, call, bad) -> None:
    keys = to_xp(np.zeros((2, 3)))
    with refused(ValueError, f"temperature = {float(bad)} {POSITIVE_AND_FINITE}"):
        LOG_CALLS[call](keys, 1, temperature=to_xp(float(bad)))
    with refused(ValueError, f"temperature[1] = {float(bad)} {POSITIVE_AND_FINITE}"):
        LOG_CALLS[call](keys, 1, temperature=to_xp([1.0, float(bad)]))


@pytest.mark.parametrize("shape", [(3,), (2, 1), (2, 3), (1, 2), (0,)])
@pytest.mark.parametrize("call", TAKE_TEMPERATURE)
def test_temperatures_with_an_axis_too_many(to_xp, call, shape) -> None:
    """Shape (n, 1) is the known trap: by broadcasting it would make (n, n) of n keys."""
    message = f"temperature has shape {shape}, which does not broadcast to the batch shape (2,)"
    with refused(ValueError, message, "give one temperature, or one for each row, without an axis for the items"):
        LOG_CALLS[call](to_xp(np.zeros((2, 3))), 1, temperature=to_xp(np.ones(shape)))
    with refused(ValueError, "temperature has shape (3, 1), which does not broadcast to the batch shape ()"):
        LOG_CALLS[call](to_xp(np.zeros(3)), 1, temperature=to_xp(np.ones((3, 1))))


@pytest.mark.parametrize("bad", [True, "1", 1j, None, np.asarray([None]), [True]])
@pytest.mark.parametrize("call", TAKE_TEMPERATURE)
def test_temperatures_that_are_not_numbers(call, bad) -> None:
    with refused(TypeError, "temperature has dtype "):
        LOG_CALLS[call](np.zeros(3), 1, temperature=bad)


@pytest.mark.parametrize("call", [gt.relaxed_sample, gt.relaxed_sample.fwd])
def test_bad_noise(to_xp, call) -> None:
    log_weights = to_xp(np.zeros((2, 3)))
    with refused(ValueError, "noise has shape (3,), but log_weights has (2, 3)"):
        call(log_weights, 1, noise=to_xp(np.zeros(3)))
    with refused(TypeError, "pass rng or noise, not both"):
        call(log_weights, 1, noise=to_xp(np.zeros((2, 3))), rng=0)
    for bad in (math.nan, math.inf, -math.inf):
        noise = np.zeros((2, 3))
        noise[1, 0] = bad
        with refused(ValueError, f"noise[1, 0] = {bad}; pass finite Gumbel noise"):
            call(log_weights, 1, noise=to_xp(noise))


# --- indices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 4, 2**40])
@pytest.mark.parametrize("call", INDEX_CALLS)
def test_indices_of_no_item(to_xp, call, bad) -> None:
    for indices, index in (([1, bad], "[1]"), ([[0, 1], [bad, 2]], "[1, 0]")):
        with refused(ValueError, f"indices{index} = {bad} is not one of the n = 4 items", "from 0 to n - 1"):
            INDEX_CALLS[call](np.asarray(indices), 4)


def test_an_unsigned_index_that_wraps_is_named_as_it_was_passed() -> None:
    with refused(ValueError, f"indices[0] = {2**64 - 1} is not one of the n = 4 items"):
        gt.k_hot(np.asarray([2**64 - 1], dtype=np.uint64), 4)


@pytest.mark.parametrize("call", INDEX_CALLS)
def test_indices_that_repeat_an_item(call) -> None:
    with refused(ValueError, "indices has item 3 more than once; a subset has each item at most once"):
        INDEX_CALLS[call](np.asarray([3, 3]), 4)
    with refused(ValueError, "indices[1] has item 2 more than once"):
        INDEX_CALLS[call](np.asarray([[0, 1], [2, 2], [3, 3]]), 4)
    with refused(ValueError, "indices[0, 1] has item 0 more than once"):
        INDEX_CALLS[call](np.asarray([[[0, 1], [0, 0]]]), 4)


@pytest.mark.parametrize(
    "bad",
    [[0.0, 1.0], np.asarray([0.5, 1]), [True, False], ["0", "1"], [None, 0], [1j, 0]],
    ids=["float", "float array", "bool", "string", "object", "complex"],
)
@pytest.mark.parametrize("call", INDEX_CALLS)
def test_indices_that_are_not_integers(call, bad) -> None:
    with refused(TypeError, f"indices has dtype {np.asarray(bad).dtype}; pass integers"):
        INDEX_CALLS[call](bad, 4)


@pytest.mark.parametrize("call", INDEX_CALLS)
def test_indices_of_a_bad_shape(call) -> None:
    with refused(ValueError, "indices is 0-dimensional; its last axis lists the k selected items"):
        INDEX_CALLS[call](np.asarray(1), 4)
    with refused(TypeError, "indices cannot be made into an array", "pass a rectangular array"):
        INDEX_CALLS[call]([[0, 1], [2]], 4)
    with refused(TypeError, "indices is a masked array"):
        INDEX_CALLS[call](np.ma.array([0, 1], mask=[True, False]), 4)


@pytest.mark.parametrize("dtype", ["bool", "float32", "float64"])
def test_indices_of_every_library_are_integers(xp, device, dtype) -> None:
    bad = xp.ones((1,), dtype=getattr(xp, dtype), device=device)
    with refused(TypeError, "indices has dtype ", dtype, "; pass integers"):
        gt.k_hot(bad, 4)
    for op in (gt.ordered_logpmf, gt.subset_logpmf):
        with refused(TypeError, "indices has dtype ", dtype, "; pass integers"):
            op(xp.zeros((4,), device=device), bad)


@pytest.mark.parametrize("op", [gt.ordered_logpmf, gt.subset_logpmf], ids=lambda op: op.name)
def test_indices_on_every_library(to_xp, op) -> None:
    for indices, message in (
        ([1, 4], "indices[1] = 4 is not one of the n = 4 items"),
        ([1, 1], "indices has item 1 more than once"),
    ):
        with refused(ValueError, message):
            op(to_xp(np.zeros(4)), to_xp(indices))
        with refused(ValueError, message):
            op(to_xp(np.zeros(4)), indices)
        with refused(ValueError, message):
            gt.k_hot(to_xp(indices), 4)


@pytest.mark.parametrize("op", [gt.ordered_logpmf, gt.subset_logpmf], ids=lambda op: op.name)
def test_batches_of_indices_that_do_not_fit(to_xp, op) -> None:
    with refused(ValueError, "indices has the batch shape (3,), which does not broadcast with (2,) of log_weights"):
        op(to_xp(np.zeros((2, 4))), to_xp(np.zeros((3, 1), dtype=np.int64)))


@pytest.mark.parametrize("distribution", [gt.PlackettLuce, gt.SubsetDistribution])
def test_samples_of_another_size_than_the_distribution_draws(distribution) -> None:
    law = distribution(np.zeros(4), 2)
    for call in (law.logpmf, law.pmf):
        with refused(ValueError, "indices lists 3 items in a row, but this distribution draws k = 2"):
            call([0, 1, 2])


# --- derivatives ----------------------------------------------------------------------------------

OPERATORS = pytest.mark.parametrize("op", gt.OPERATORS.values(), ids=lambda op: op.name)


def forward(op, to_xp):
    """The operator at its own example, on the library under test."""
    args, kwargs = op.example(np.random.default_rng(0))
    moved = [to_xp(each) if isinstance(each, np.ndarray) else each for each in args]
    options = {name: to_xp(each) if isinstance(each, np.ndarray) else each for name, each in kwargs.items()}
    return op.fwd(*moved, **options)


@OPERATORS
def test_tangents_of_a_wrong_shape(to_xp, op) -> None:
    value, residuals = forward(op, to_xp)
    first = op.facts.differentiable[0]
    shape = residuals.shapes[0][1]
    for wrong in ((7,), shape[:-1], (1, *shape), ()):
        message = f"{op.name}: the tangent of {first} has shape {wrong}, but {first} has {shape}; they must agree"
        with refused(ValueError, message):
            op.jvp(residuals, to_xp(np.zeros(wrong)))
    for wrong in ((7,), (1, *value.shape)):
        message = f"{op.name}: the cotangent has shape {wrong}, but the value has {tuple(value.shape)}; they must agree"
        with refused(ValueError, message):
            op.vjp(residuals, to_xp(np.zeros(wrong)))


@OPERATORS
@pytest.mark.parametrize("dtype", ["bool", "complex128"])
def test_tangents_that_are_not_real(to_xp, op, dtype) -> None:
    value, residuals = forward(op, to_xp)
    with refused(TypeError, f"the tangent of {op.facts.differentiable[0]} has dtype ", dtype):
        op.jvp(residuals, to_xp(np.zeros(residuals.shapes[0][1]), dtype))
    with refused(TypeError, "the cotangent has dtype ", dtype):
        op.vjp(residuals, to_xp(np.zeros(value.shape), dtype))


@OPERATORS
def test_residuals_of_another_operator_or_of_none(op) -> None:
    other = next(each for each in gt.OPERATORS.values() if each is not op)
    value, residuals = forward(other, np.asarray)
    for derivative in (op.jvp, op.vjp):
        with refused(ValueError, f"{op.name}: these residuals come from {other.name}.fwd; pass those of {op.name}.fwd"):
            derivative(residuals, value)
        with refused(TypeError, f"{op.name}: residuals must come from {op.name}.fwd, not be a tuple"):
            derivative((value, residuals), value)
        with refused(TypeError, f"{op.name}: residuals must come from {op.name}.fwd, not be a NoneType"):
            derivative(None, value)


@OPERATORS
@pytest.mark.parametrize(
    ("wrt", "error", "message"),
    [
        ("k", ValueError, "wrt names 'k', which has no derivative; choose from ['FIRST'"),
        (("FIRST", "axis"), ValueError, "wrt names 'axis', which has no derivative; choose from ['FIRST'"),
        ((), ValueError, "wrt = () must name at least one argument, and none twice"),
        (("FIRST", "FIRST"), ValueError, "wrt = ('FIRST', 'FIRST') must name at least one argument, and none twice"),
        (["FIRST"], TypeError, "wrt = ['FIRST'] is neither the name of an argument nor a tuple of names"),
        (0, TypeError, "wrt = 0 is neither the name of an argument nor a tuple of names"),
        ((0,), ValueError, "wrt names 0, which has no derivative"),
    ],
)
def test_arguments_without_derivative(op, wrt, error, message) -> None:
    first = op.facts.differentiable[0]
    value, residuals = forward(op, np.asarray)
    if isinstance(wrt, (tuple, list)):
        wrt = type(wrt)(first if each == "FIRST" else each for each in wrt)
    expected = f"{op.name}: " + message.replace("FIRST", first)
    with refused(error, expected):
        op.vjp(residuals, value, wrt=wrt)
    with refused(error, expected):
        op.jvp(residuals, np.zeros(residuals.shapes[0][1]), wrt=wrt)


@OPERATORS
def test_as_many_tangents_as_arguments(op) -> None:
    _, residuals = forward(op, np.asarray)
    tangents = [np.zeros(shape) for _, shape, _ in residuals.shapes[:-1]]
    with refused(TypeError, f"{op.name}.jvp: 0 tangents for ", "pass one tangent for each name in wrt"):
        op.jvp(residuals)
    with refused(TypeError, f"{op.name}.jvp: {len(tangents) + 1} tangents for {len(tangents)} arguments"):
        op.jvp(residuals, *tangents, tangents[0])
    with refused(TypeError, f"{op.name}.jvp: 2 tangents for 1 arguments"):
        op.jvp(residuals, tangents[0], tangents[-1], wrt=op.facts.differentiable[0])


# --- two libraries, two devices -------------------------------------------------------------------


@pytest.fixture
def foreign(library):
    """A function that makes an array of another library than the one under test."""
    import array_api_strict

    return array_api_strict.asarray if library.name == "numpy" else np.asarray


@pytest.fixture
def elsewhere(library):
    """A function that makes an array of the same library on another device."""
    if library.name == "strict":
        return lambda array: library.xp.asarray(array, device=library.xp.Device("device1"))
    if library.name == "strict-device1":
        return lambda array: library.xp.asarray(array, device=library.xp.Device("CPU_DEVICE"))
    if library.name == "cupy":
        import cupy

        if cupy.cuda.runtime.getDeviceCount() < 2:
            pytest.skip("one CUDA device only")
        return lambda array: library.xp.asarray(array, device=cupy.cuda.Device(1))
    return pytest.skip(f"{library.name} has one device here")


def assert_two_arrays_are_refused(to_xp, other, error, parts) -> None:
    """In every function of two arrays, whichever is the odd one."""
    three = np.zeros((2, 3))
    for call in TAKE_TEMPERATURE:
        with refused(error, f"temperature ({parts}", " and keys ("):
            LOG_CALLS[call](to_xp(three), 1, temperature=other(np.ones(2)))
    for call in (gt.relaxed_sample, gt.relaxed_sample.fwd):
        with refused(error, "noise (", " and log_weights ("):
            call(to_xp(three), 1, noise=other(three))
        with refused(error, "noise (", " and weights ("):
            call(weights=to_xp(three + 1), k=1, noise=other(three))
    for op in (gt.ordered_logpmf, gt.ordered_logpmf.fwd, gt.subset_logpmf, gt.subset_logpmf.fwd):
        with refused(error, "indices (", " and log_weights ("):
            op(to_xp(three), other(np.asarray([0, 1])))
    for distribution in (gt.PlackettLuce, gt.SubsetDistribution):
        with refused(error, "indices (", " and the weights ("):
            distribution(weights=to_xp(three + 1), k=2).logpmf(other(np.asarray([0, 1])))
    for op in gt.OPERATORS.values():
        value, residuals = forward(op, to_xp)
        with refused(error, f"the tangent of {op.facts.differentiable[0]} (", " and the residuals ("):
            op.jvp(residuals, other(np.zeros(residuals.shapes[0][1])))
        with refused(error, "the cotangent (", " and the residuals ("):
            op.vjp(residuals, other(np.zeros(value.shape)))


def test_arrays_of_two_libraries(to_xp, foreign) -> None:
    assert_two_arrays_are_refused(to_xp, foreign, TypeError, "")
    with refused(TypeError, ") are of two array libraries; convert one of them on purpose"):
        gt.relaxed_topk(to_xp([0.0, 1.0]), 1, temperature=foreign(np.asarray(1.0)))


def test_arrays_on_two_devices(to_xp, elsewhere) -> None:
    assert_two_arrays_are_refused(to_xp, elsewhere, ValueError, "on ")
    with refused(ValueError, ") are on two devices; move one of them on purpose"):
        gt.relaxed_topk(to_xp([0.0, 1.0]), 1, temperature=elsewhere(np.asarray(1.0)))


def test_numbers_and_lists_go_where_the_arrays_are(to_xp, assert_close) -> None:
    keys = to_xp([[0.5, 0.1, -1.0], [1.0, 0.0, 2.0]])
    expected = gt.relaxed_topk(np.asarray([[0.5, 0.1, -1.0], [1.0, 0.0, 2.0]]), 2, temperature=np.asarray([0.5, 2.0]))
    assert_close(gt.relaxed_topk(keys, 2, temperature=[0.5, 2.0]), expected, rtol=1e-12)
    log_p = gt.subset_logpmf(keys, [[0, 1], [2, 0]])
    assert_close(log_p, gt.subset_logpmf(np.asarray([[0.5, 0.1, -1.0], [1.0, 0.0, 2.0]]), [[0, 1], [2, 0]]), rtol=1e-12)


# --- check=False ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [name for name in LOG_CALLS if name[0].islower()])
def test_without_checks_values_are_not_looked_at(to_xp, call) -> None:
    """What comes out of bad values is not defined; that they are not looked at is."""
    LOG_CALLS[call](to_xp([0.0, math.nan, 1.0]), 1, check=False)
    LOG_CALLS[call](to_xp([0.0, -math.inf, -math.inf]), 2, check=False)
    if call in WEIGHT_CALLS:
        WEIGHT_CALLS[call](to_xp([0.0, -1.0, 1.0]), 1, check=False)


@pytest.mark.parametrize("call", TAKE_K[:-2])
def test_without_checks_types_and_sizes_are_looked_at_all_the_same(to_xp, call) -> None:
    for k, error in ((4, ValueError), (-1, ValueError), (1.0, TypeError)):
        with refused(error, f"k = {k} "):
            LOG_CALLS[call](to_xp(np.zeros(3)), k, check=False)
    with refused(TypeError, f"{argument_of(call)} has dtype "):
        LOG_CALLS[call](to_xp(np.zeros(3), "bool"), 1, check=False)


@pytest.fixture
def waits(library):
    """A function (call) -> how often the host waits for the device or copies from it, on the CUDA emulator."""
    emulator = sys.modules.get("cupy_emulator")
    if library.name != "cupy" or emulator is None:
        pytest.skip("only the CUDA emulator counts how often the host waits")

    def count(call) -> int:
        call()  # CuPy copies small tables on first use
        before = emulator.counters()
        call()
        after = emulator.counters()
        return max(after[name] - before[name] for name in ("syncs", "d2h"))

    return count


@pytest.mark.parametrize("argument", ["weights", "log_weights"])
@pytest.mark.parametrize("seed", ["int", "generator", "numpy generator", "counter"])
def test_without_checks_nothing_waits_for_the_device(to_xp, waits, argument, seed) -> None:
    from tests.test_random import own_generator

    array = to_xp(np.random.default_rng(0).exponential(size=(4, 10)))
    library = type("Library", (), {"name": "cupy"})
    rng = {
        "int": 0,
        "generator": own_generator(library, 0),
        "numpy generator": np.random.default_rng(0),
        "counter": gt.CounterRNG(0),
    }[seed]
    assert waits(lambda: gt.gumbel_keys(**{argument: array}, rng=rng, check=False)) == 0
    assert waits(lambda: gt.sample(**{argument: array}, k=3, rng=rng, check=False)) == 0
    # With checks: one look at good values.
    assert waits(lambda: gt.gumbel_keys(**{argument: array}, rng=rng)) == 1
    assert waits(lambda: gt.sample(**{argument: array}, k=3, rng=rng)) == 1


def test_without_checks_log_probabilities_of_orders_do_not_wait(to_xp, waits) -> None:
    log_weights, indices = to_xp(np.zeros((4, 10))), to_xp(np.tile([3, 1], (4, 1)))
    assert waits(lambda: gt.ordered_logpmf(log_weights, indices, check=False)) == 0


def test_checks_of_the_relaxation_cost_one_look(to_xp, waits) -> None:
    """The recursion itself waits to see whether it underflowed; a Python number as temperature adds nothing."""
    keys = to_xp(np.random.default_rng(0).normal(size=(4, 10)))
    without = waits(lambda: gt.relaxed_topk(keys, 3, temperature=0.5, check=False))
    assert waits(lambda: gt.relaxed_topk(keys, 3, temperature=0.5)) == without + 1
    assert waits(lambda: gt.relaxed_topk(keys, 3, temperature=to_xp(0.5))) == without + 2


def test_a_masked_array_deep_in_lists_is_refused() -> None:
    """numpy.asarray would draw the masked item."""
    with pytest.raises(TypeError, match="weights is a masked array"):
        gt.sample(weights=[[np.ma.array([1.0, 2.0], mask=[False, True])]], k=1, rng=0)


@pytest.mark.parametrize("place", [0, 131_072, 299_999])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_value_at_any_place_of_a_long_row(place, bad) -> None:
    """Long rows are looked at piece by piece."""
    for size in (300_000, 131_072 + place):
        row = np.zeros(max(size, place + 1))
        row[place] = bad
        with refused(ValueError, f"keys[{place}] = {bad}"):
            gt.relaxed_topk(row, 2)


@pytest.mark.parametrize("temperature", [1, 2.0, 1e30, 1e31, 10**15, np.float32(2.0)])
def test_a_temperature_may_be_any_kind_of_number(to_xp, temperature) -> None:
    """The same as an array of one number."""
    keys = to_xp([0.5, 0.25, 2.0])
    xp = api.namespace_of(keys)
    found = gt.relaxed_topk(keys, 2, temperature=temperature)
    expected = gt.relaxed_topk(keys, 2, temperature=to_xp([float(temperature)])[0])
    assert found.dtype == keys.dtype
    assert bool(xp.all(found == expected))
