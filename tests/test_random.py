"""`rng=` after SPEC 7, and the counter-based generator: the draw of item i is a pure function of (seed, i)."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from tests import _statistics

REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=100)


def own_generator(library, seed: int):
    """A generator of the array library itself."""
    if library.name == "torch":
        return library.xp.Generator(device=library.device).manual_seed(seed)
    if library.name == "cupy":
        import cupy

        return cupy.random.default_rng(seed)
    pytest.skip(f"{library.name} has no generators of its own")


# --- seeds ----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_draw(to_xp) -> None:
    weights = to_xp(np.zeros((3, 4)))
    for seed in (0, 7, 2**70, np.int64(7), np.uint8(7), [1, 2, 3]):
        first, second = (api.host(gt.gumbel_keys(weights, rng=seed)) for _ in range(2))
        np.testing.assert_array_equal(first, second)


def test_all_ways_to_write_a_seed_agree(to_xp) -> None:
    weights = to_xp(np.zeros(5))
    expected = api.host(gt.gumbel_keys(weights, rng=7))
    for seed in (np.int64(7), np.random.SeedSequence(7)):
        np.testing.assert_array_equal(api.host(gt.gumbel_keys(weights, rng=seed)), expected)
    assert not np.array_equal(api.host(gt.gumbel_keys(weights, rng=8)), expected)


def test_without_a_seed_every_draw_is_another(to_xp) -> None:
    first, second = (api.host(gt.gumbel_keys(to_xp(np.zeros(5)))) for _ in range(2))
    assert not np.any(first == second)


def test_a_numpy_generator_draws_on_the_host_whatever_the_library(to_xp, assert_close) -> None:
    expected = -np.log(np.random.default_rng(3).standard_exponential((2, 5)))
    for rng in (np.random.default_rng(3), np.random.PCG64(3)):
        assert_close(gt.gumbel_keys(to_xp(np.zeros((2, 5))), rng=rng), expected, rtol=1e-14)


def test_a_generator_is_used_and_moves_on(to_xp) -> None:
    """Two draws of four are one draw of eight."""
    rng = np.random.default_rng(5)
    halves = [api.host(gt.gumbel_keys(to_xp(np.zeros(4)), rng=rng)) for _ in range(2)]
    whole = api.host(gt.gumbel_keys(to_xp(np.zeros(8)), rng=np.random.default_rng(5)))
    np.testing.assert_array_equal(np.concatenate(halves), whole)


def test_a_generator_of_the_library_is_used_and_moves_on(library, to_xp) -> None:
    rng = own_generator(library, 5)
    first, second = (api.host(gt.gumbel_keys(to_xp(np.zeros(4)), rng=rng)) for _ in range(2))
    assert not np.any(first == second)
    again = api.host(gt.gumbel_keys(to_xp(np.zeros(4)), rng=own_generator(library, 5)))
    np.testing.assert_array_equal(again, first)


def test_a_bit_generator_of_cupy_is_used(library, to_xp) -> None:
    if library.name != "cupy":
        pytest.skip("about CuPy's bit generators")
    import cupy

    first, second = (gt.gumbel_keys(to_xp(np.zeros(4)), rng=cupy.random.XORWOW(5)) for _ in range(2))
    np.testing.assert_array_equal(api.host(first), api.host(second))


def test_the_global_state_is_left_alone(to_xp) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    gt.gumbel_keys(to_xp(np.zeros(4)))
    gt.sample(to_xp(np.zeros(4)), 2, rng=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("call", [gt.gumbel_keys, lambda w, rng: gt.sample(w, 2, rng=rng)], ids=["keys", "sample"])
@pytest.mark.parametrize(
    ("rng", "message"),
    [
        (np.random.RandomState(0), "RandomState.*default_rng"),
        (True, "rng = True is not a seed"),
        (np.bool_(True), "is not a seed"),
        (1.0, r"rng = 1\.0 is not a seed"),
        (np.float32(1), "is not a seed"),
        ("7", "rng = '7' is not understood.*pass None, a non-negative int"),
        (np.random, "is not understood"),
        (object(), "is not understood"),
        ([1.5], "is not understood"),
    ],
)
def test_what_is_not_a_seed_is_refused(to_xp, call, rng, message) -> None:
    with pytest.raises(TypeError, match=message):
        call(to_xp(np.zeros(4)), rng=rng)


def test_a_negative_seed_is_refused(to_xp) -> None:
    with pytest.raises(ValueError, match=r"rng = -1 is not understood.*non-negative"):
        gt.gumbel_keys(to_xp(np.zeros(4)), rng=-1)


def test_the_legacy_generator_of_cupy_is_refused(library, to_xp) -> None:
    if library.name != "cupy":
        pytest.skip("about CuPy's legacy generator")
    import cupy

    with pytest.raises(TypeError, match=r"legacy cupy\.random\.RandomState.*default_rng"):
        gt.gumbel_keys(to_xp(np.zeros(4)), rng=cupy.random.RandomState(0))


# --- extreme draws --------------------------------------------------------------------------------


class ConstantGenerator(np.random.Generator):
    """All unit exponentials are the same number; 0 comes once in 2^53 draws."""

    def __init__(self, constant: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.constant = constant

    def standard_exponential(self, size=None, dtype=np.float64, method="zig", out=None):
        if out is None:
            return np.full(size, self.constant, dtype)
        out[...] = self.constant
        return out


def test_a_draw_of_exactly_0_is_a_finite_key(to_xp) -> None:
    rng = ConstantGenerator(0.0)
    keys = api.host(gt.gumbel_keys(to_xp([0.0, -np.inf, 700.0]), rng=rng))
    assert np.isfinite(keys).tolist() == [True, False, True]
    assert keys[1] == -np.inf
    # Ties at 0 do not make an item of weight zero win: 0 / 0 is no time.
    assert api.host(gt.sample(weights=to_xp([0.0, 0.0, 2.0]), k=1, rng=rng)).tolist() == [2]


def test_an_item_of_weight_zero_does_not_win_in_a_long_row_of_zeros() -> None:
    weights = np.zeros(100_000)
    weights[[5, 99_000]] = 1.0
    chosen = gt.sample(weights=weights, k=2, rng=ConstantGenerator(0.0))
    assert sorted(chosen.tolist()) == [5, 99_000]


# --- the counter-based generator ------------------------------------------------------------------


def test_words_are_those_of_philox() -> None:
    seed = 12345
    key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    expected = np.random.Philox(key=key).random_raw(1000)
    np.testing.assert_array_equal(gt.CounterRNG(seed).words(0, 1000), expected)
    for start, count in ((0, 0), (1, 1), (3, 2), (4, 4), (5, 990), (997, 3)):
        np.testing.assert_array_equal(gt.CounterRNG(seed).words(start, count), expected[start : start + count])


@REPRODUCIBLE
@given(
    seed=st.integers(0, 2**80),
    start=st.one_of(st.integers(0, 10), st.integers(0, 2**66)),
    n=st.integers(0, 60),
    data=st.data(),
)
def test_keys_do_not_depend_on_the_chunks_or_their_order(seed: int, start: int, n: int, data: st.DataObject) -> None:
    log_weights = np.random.default_rng(0).normal(size=n)
    whole = gt.gumbel_keys(log_weights, rng=gt.CounterRNG(seed), start=start)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    chunks = list(zip([0, *cuts], [*cuts, n], strict=True))
    result = np.full(n, np.nan)
    for first, last in data.draw(st.permutations(chunks)):
        result[first:last] = gt.gumbel_keys(log_weights[first:last], rng=gt.CounterRNG(seed), start=start + first)
    np.testing.assert_array_equal(result, whole)


def test_keys_of_chunks_on_every_library(to_xp, assert_close) -> None:
    log_weights = np.random.default_rng(1).normal(size=13)
    expected = gt.gumbel_keys(log_weights, rng=gt.CounterRNG(3))
    for first, last in ((0, 13), (0, 5), (5, 6), (6, 13)):
        part = gt.gumbel_keys(to_xp(log_weights[first:last]), rng=gt.CounterRNG(3), start=first)
        assert_close(part, expected[first:last], rtol=1e-13)


def test_items_are_numbered_in_c_order(to_xp) -> None:
    flat = api.host(gt.gumbel_keys(to_xp(np.zeros(60)), rng=gt.CounterRNG(3)))
    batch = gt.gumbel_keys(to_xp(np.zeros((3, 4, 5))), rng=gt.CounterRNG(3))
    np.testing.assert_array_equal(api.host(batch), flat.reshape(3, 4, 5))
    fortran = gt.gumbel_keys(np.zeros((3, 4, 5), order="F"), rng=gt.CounterRNG(3))
    np.testing.assert_allclose(fortran, flat.reshape(3, 4, 5), rtol=1e-14)


def test_samples_are_the_same_on_every_library(to_xp) -> None:
    weights = np.random.default_rng(2).exponential(size=(6, 9))
    expected = gt.sample(weights=weights, k=4, rng=gt.CounterRNG(11))
    np.testing.assert_array_equal(api.host(gt.sample(weights=to_xp(weights), k=4, rng=gt.CounterRNG(11))), expected)
    np.testing.assert_array_equal(api.host(gt.sample(to_xp(np.log(weights)), 4, rng=gt.CounterRNG(11))), expected)


def test_noise_is_gumbel_and_distinct() -> None:
    noise = gt.gumbel_keys(np.zeros(1_000_000), rng=gt.CounterRNG(0))
    _statistics.assert_gumbel(noise)
    _statistics.assert_distinct(noise)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_noise_beyond_the_float32_cap(to_xp, dtype) -> None:
    """Float32 uniforms end at 16.64; this item of the stream lies at 20.2, one in 6e8."""
    key = gt.gumbel_keys(to_xp([0.0], dtype), rng=gt.CounterRNG(0), start=82_550_813)
    assert api.host(key)[0] == pytest.approx(20.2255, abs=1e-4)


@pytest.mark.parametrize("word", [0, 1, 2**63, 2**64 - 2, 2**64 - 1])
def test_every_word_is_a_positive_finite_exponential(monkeypatch: pytest.MonkeyPatch, word: int) -> None:
    """E = -log(1 - u) at the ends of the range, to full relative accuracy where E is small."""
    monkeypatch.setattr(gt.CounterRNG, "words", lambda self, start, count: np.full(count, word, dtype=np.uint64))
    (drawn,) = gt.CounterRNG(0).standard_exponential(0, 1)
    assert 2.0**-66 < drawn < 37
    if word < 2**10:
        assert drawn == pytest.approx((word + 0.5) * 2.0**-64, rel=1e-15)


@pytest.mark.parametrize(("other", "start"), [(1, 0), (2**64, 0), (2**32, 0), (0, 1), (0, 4)])
def test_seeds_and_neighbours_are_independent(other: int, start: int) -> None:
    """100 joint cells of two streams, or of one stream and its neighbours: an error of 1.5 % is found."""
    draws = 1_000_000
    assert _statistics.smallest_error_found(draws, 100) < 0.015
    first = gt.CounterRNG(0).words(0, draws) >> np.uint64(11)
    second = gt.CounterRNG(other).words(start, draws) >> np.uint64(11)
    cells = (first * 2.0**-53 * 10).astype(int) * 10 + (second * 2.0**-53 * 10).astype(int)
    _statistics.assert_distribution(np.bincount(cells, minlength=100), np.full(100, 0.01))


def test_a_counter_generator_is_a_value() -> None:
    rng = gt.CounterRNG(7)
    assert rng == gt.CounterRNG(np.int64(7)) != gt.CounterRNG(8)
    assert hash(rng) == hash(gt.CounterRNG(7))
    assert pickle.loads(pickle.dumps(rng)) == rng
    with pytest.raises(AttributeError):
        rng.seed = 8
    first, second = (gt.gumbel_keys(np.zeros(3), rng=rng) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "seed = -1 is negative; pass 0 or more"),
        (True, TypeError, "seed = True must be an integer"),
        (1.0, TypeError, r"seed = 1\.0 must be an integer"),
        ("1", TypeError, "seed = '1' must be an integer"),
        (None, TypeError, "seed = None must be an integer"),
    ],
)
def test_bad_seeds_of_a_counter_generator(seed, error, message) -> None:
    with pytest.raises(error, match=message):
        gt.CounterRNG(seed)


@pytest.mark.parametrize("rng", [None, 0, np.random.default_rng(0)])
@pytest.mark.parametrize("call", [gt.gumbel_keys, gt.log_arrival_times])
def test_item_numbers_need_a_counter_generator(to_xp, call, rng) -> None:
    with pytest.raises(ValueError, match=r"start = 5 needs rng=CounterRNG\(seed\)"):
        call(to_xp(np.zeros(3)), rng=rng, start=5)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (-1, ValueError, "start = -1 is negative"),
        (1.0, TypeError, r"start = 1\.0 must be an integer"),
        (True, TypeError, "start = True"),
    ],
)
def test_bad_item_numbers(to_xp, start, error, message) -> None:
    with pytest.raises(error, match=message):
        gt.gumbel_keys(to_xp(np.zeros(3)), rng=gt.CounterRNG(0), start=start)
