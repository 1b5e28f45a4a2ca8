"""Weighted sampling without replacement: the exact distribution (eqs. 1 and 2), and every form of input.

Each statistical test makes 2e5 draws unless it says otherwise, with a false-alarm rate of 1e-6 and a power of 1 - 1e-6
against these root mean square relative errors of the cell probabilities: 2.6 % in 12 cells, 2.9 % in 35 (the
largest number of subsets at n = 7), 3.1 % in 60, 7.3 % in 5040 (all orders of 7 items). Cells in which less than 20
draws are expected are joined.
"""

from __future__ import annotations

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import stats

import gumbeltopk as gt
from gumbeltopk import _array_api as api
from gumbeltopk import _sample_by_keys
from gumbeltopk._numpy import selection
from gumbeltopk._sample_by_keys import SHORT_ROW
from tests import _reference, _statistics
from tests.test_keys import SMALLEST, WIDE_WEIGHTS, layouts
from tests.test_random import ConstantGenerator, own_generator

DRAWS = 200_000
WEIGHTS = np.asarray([0.3, 1.0, 2.5, 0.7, 4.0, 1.6, 0.05])


@functools.cache
def ordered_distribution(weights: tuple[float, ...], k: int) -> tuple[np.ndarray, np.ndarray]:
    """All ordered samples and their probabilities (eq. 1), computed in exact rationals."""
    support = list(itertools.permutations(range(len(weights)), k))
    probabilities = [float(_reference.ordered_probability(weights, order)) for order in support]
    return np.asarray(support).reshape(len(support), k), np.asarray(probabilities)


def subset_distribution(weights: tuple[float, ...], k: int) -> tuple[np.ndarray, np.ndarray]:
    """All subsets and their probabilities (eq. 2): the sums of eq. 1 over the orders."""
    orders, probabilities = ordered_distribution(weights, k)
    support, place = np.unique(np.sort(orders, axis=-1), axis=0, return_inverse=True)
    return support, np.bincount(place.ravel(), probabilities)


def assert_samples(rows, weights) -> None:
    """Rows (draws, k) may be ordered samples by the weights (n,), drawn independently."""
    rows = api.host(rows)
    exact = tuple(float(w) for w in weights)
    orders, probabilities = ordered_distribution(exact, rows.shape[-1])
    _statistics.assert_distribution(_statistics.count_rows(rows, orders), probabilities)
    _statistics.assert_independent(rows[:, 0], np.asarray(exact) / sum(exact))


def repeated(weights, draws: int = DRAWS):
    return np.broadcast_to(weights, (draws, len(weights)))


# --- the exact distribution -----------------------------------------------------------------------


@pytest.mark.parametrize(("n", "k"), [(n, k) for n in range(1, 8) for k in range(1, n + 1)])
def test_the_distribution_of_ordered_samples_and_of_subsets(n: int, k: int) -> None:
    weights = WEIGHTS[:n]
    rows = gt.sample(weights=repeated(weights), k=k, rng=100 * n + k)
    assert_samples(rows, weights)
    support, probabilities = subset_distribution(tuple(weights.tolist()), k)
    _statistics.assert_distribution(_statistics.count_rows(np.sort(rows, axis=-1), support), probabilities)


def test_the_power_is_as_stated() -> None:
    for cells, error in ((12, 0.026), (35, 0.029), (60, 0.031), (5040, 0.073)):
        assert _statistics.smallest_error_found(DRAWS, cells) < error


@pytest.mark.parametrize("k", range(1, 6))
def test_the_distribution_objects_draw_what_they_say(k: int) -> None:
    """Samples against the same object's own probabilities, over the support that it lists."""
    for number, distribution in enumerate((gt.PlackettLuce, gt.SubsetDistribution)):
        law = distribution(weights=WEIGHTS[:5], k=k)
        rows = law.sample(DRAWS, rng=10 * k + number)
        if distribution is gt.SubsetDistribution:
            rows = np.sort(rows, axis=-1)
        support = law.enumerate_support()
        _statistics.assert_distribution(_statistics.count_rows(rows, support), law.pmf(support))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_every_dtype_of_weights_and_of_log_weights(argument: str, dtype) -> None:
    """Against the values that the array really holds; scaled, so that they do not sum to 1."""
    given = (WEIGHTS[:5] * 40 if argument == "weights" else np.log(WEIGHTS[:5]) + 3).astype(dtype)
    rows = gt.sample(**{argument: repeated(given)}, k=3, rng=1)
    wide = given.astype(np.float64)
    assert_samples(rows, wide if argument == "weights" else np.exp(wide))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64])
def test_integer_weights(dtype) -> None:
    weights = np.asarray([3, 0, 100, 7, 1], dtype)
    assert_samples(gt.sample(weights=repeated(weights), k=3, rng=2), weights)


def test_one_row_at_a_time() -> None:
    """2e5 calls with one generator."""
    rng = np.random.default_rng(3)
    rows = np.stack([gt.sample(weights=WEIGHTS[:5], k=3, rng=rng) for _ in range(DRAWS)])
    assert_samples(rows, WEIGHTS[:5])


def test_one_call_for_each_row_is_one_call_for_all() -> None:
    rng = np.random.default_rng(4)
    one_by_one = [gt.sample(weights=WEIGHTS, k=3, rng=rng) for _ in range(200)]
    np.testing.assert_array_equal(gt.sample(weights=repeated(WEIGHTS, 200), k=3, rng=4), one_by_one)


@pytest.mark.parametrize("n", [1, 2, 300, SHORT_ROW, SHORT_ROW + 1])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_one_row_is_a_batch_of_one_row(argument: str, n: int) -> None:
    """Short rows by themselves go another way: the same samples, with weights of zero and extreme ones, too."""
    ordinary = np.random.default_rng(37).gamma(1.0, size=n)
    for weights in (ordinary, np.where(np.arange(n) % 3 == 0, ordinary, 0.0), ordinary * 1e-310, ordinary**200):
        with np.errstate(divide="ignore"):
            given = weights if argument == "weights" else np.log(weights)
        for k in {0, 1, min(10, n // 3), int((weights > 0).sum())}:
            one, batch = np.random.default_rng(k), np.random.default_rng(k)
            row = gt.sample(**{argument: given}, k=k, rng=one)
            np.testing.assert_array_equal(row, gt.sample(**{argument: given[np.newaxis]}, k=k, rng=batch)[0])
            assert one.random() == batch.random()


@pytest.mark.parametrize("exponential", [0.0, 5e-324, 700.0])
def test_one_row_of_equal_exponentials_is_in_the_order_of_its_weights(exponential: float) -> None:
    """Those that lack digits, and 0 itself, among them."""
    weights = np.random.default_rng(38).permutation(np.arange(1.0, 301.0))
    picks = gt.sample(weights=weights, k=20, rng=ConstantGenerator(exponential))
    assert weights[picks].tolist() == list(range(300, 280, -1))


def test_distinct_arrivals_are_those_of_a_sort() -> None:
    times = np.random.default_rng(39).exponential(size=500)
    for k in (1, 7, 499, 500):
        np.testing.assert_array_equal(selection.first_distinct_arrivals(times, k), np.argsort(times)[:k])
    third, fourth = np.argsort(times)[2:4]
    times[fourth] = times[third]
    assert selection.first_distinct_arrivals(times, 2) is not None
    assert selection.first_distinct_arrivals(times, 3) is None
    assert selection.first_distinct_arrivals(times, 500) is None


@pytest.mark.parametrize(
    ("batch", "axis"),
    [
        (np.array(repeated(WEIGHTS[:5])), -1),
        (np.array(repeated(WEIGHTS[:5]).T), 0),
        (np.broadcast_to(WEIGHTS[:5, None], (40, 5, 5000)), 1),
        (np.array(repeated(WEIGHTS[:5], 2 * DRAWS))[::2], -1),
        (np.array(repeated(WEIGHTS[4::-1]))[:, ::-1], -1),
        (np.broadcast_to(WEIGHTS[:5], (20, 100, 100, 5)), -1),
    ],
    ids=["copied", "first axis", "middle axis", "every second row", "negative strides", "broadcast"],
)
def test_every_layout_of_a_batch(batch: np.ndarray, axis: int) -> None:
    rows = gt.sample(weights=batch, k=2, rng=5, axis=axis)
    shape = list(batch.shape)
    del shape[axis]
    assert rows.shape == (*shape, 2)
    assert_samples(rows.reshape(-1, 2), WEIGHTS[:5])


def test_rows_of_a_batch_keep_their_own_weights() -> None:
    """Two rows with opposite weights, alternating: the rows are not mixed up."""
    both = np.stack([WEIGHTS[:4], WEIGHTS[3::-1]])
    rows = gt.sample(weights=np.tile(both, (DRAWS, 1, 1)), k=2, rng=6)
    assert_samples(rows[:, 0], both[0])
    assert_samples(rows[:, 1], both[1])
    joint = np.bincount(4 * rows[:, 0, 0] + rows[:, 1, 0], minlength=16)
    _statistics.assert_distribution(joint, np.outer(*both).ravel())


def test_counter_based_samples() -> None:
    """The rows of one call, with consecutive item numbers."""
    assert_samples(gt.sample(weights=repeated(WEIGHTS[:5]), k=3, rng=gt.CounterRNG(7)), WEIGHTS[:5])
    assert_samples(gt.sample(repeated(np.log(WEIGHTS[:5])), 3, rng=gt.CounterRNG(8)), WEIGHTS[:5])


def test_every_library(to_xp) -> None:
    """With the generator that a seed stands for."""
    weights = WEIGHTS[:4]
    batch = np.array(repeated(weights))
    assert_samples(gt.sample(weights=to_xp(batch), k=2, rng=9), weights)
    assert_samples(gt.sample(to_xp(np.log(batch)), 2, rng=10), weights)


def test_the_own_generator_of_a_library(library, to_xp) -> None:
    rows = gt.sample(weights=to_xp(np.array(repeated(WEIGHTS[:4]))), k=2, rng=own_generator(library, 11))
    assert_samples(rows, WEIGHTS[:4])


# --- long rows ------------------------------------------------------------------------------------


def test_a_long_row_has_the_wallenius_distribution() -> None:
    """70,000 items in two classes, k = 1000: the number from the first class follows scipy's distribution.

    2000 draws; the mean of the class, 691 +- 0.3, is known to 0.5 % at this power.
    """
    n, first, k, odds, draws = 70_000, 30_000, 1000, 3.0, 2000
    weights = np.where(np.arange(n) < first, odds, 1.0)
    rows = gt.sample(weights=np.broadcast_to(weights, (draws, n)), k=k, rng=12)
    counts = np.bincount((rows < first).sum(axis=-1), minlength=k + 1)
    _statistics.assert_distribution(counts, stats.nchypergeom_wallenius.pmf(np.arange(k + 1), n, first, k, odds))
    assert all(len(np.unique(row)) == k for row in rows[:50])
    # The first items chosen are of the first class by weight, and within a class every place is as likely.
    share = first * odds / weights.sum()
    _statistics.assert_distribution(np.bincount(rows[:, 0] >= first), [share, 1 - share])
    places = np.bincount(rows[:, 0] // 10_000, minlength=7)
    _statistics.assert_distribution(places, np.where(np.arange(7) < 3, odds, 1.0))
    of_the_second_class = rows[rows >= first] // 10_000 - 3
    _statistics.assert_distribution(np.bincount(of_the_second_class), [1, 1, 1, 1])


@pytest.mark.parametrize("n", [2, 100, 33_000, 300_001])
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_a_sample_is_the_order_of_the_keys(n: int, argument: str) -> None:
    """Whatever way is taken inside, by size or by range: with the same seed, the k largest keys in order."""
    given = np.random.default_rng(n).normal(size=n) * 2
    given = np.exp(given) if argument == "weights" else given
    for k in sorted({1, 2, min(n, 50), n}):
        keys = gt.gumbel_keys(**{argument: given}, rng=k)
        np.testing.assert_array_equal(gt.sample(**{argument: given}, k=k, rng=k), np.argsort(-keys)[:k])


def test_a_batch_of_rows_is_the_order_of_the_keys(to_xp) -> None:
    log_weights = np.random.default_rng(13).normal(size=(5, 4, 6))
    for axis in (0, 1, 2, -3):
        keys = np.moveaxis(gt.gumbel_keys(np.moveaxis(log_weights, axis, -1), rng=gt.CounterRNG(13)), -1, axis)
        expected = np.argsort(-np.moveaxis(keys, axis, -1), axis=-1)[..., :3]
        rows = gt.sample(to_xp(log_weights), 3, rng=gt.CounterRNG(13), axis=axis)
        np.testing.assert_array_equal(api.host(rows), expected)


# --- extreme weights ------------------------------------------------------------------------------


def test_the_first_pick_among_weights_from_the_smallest_to_the_largest_float() -> None:
    weights = np.asarray([*WIDE_WEIGHTS, 3e307, 5e306])
    first = gt.sample(weights=repeated(weights), k=1, rng=14)
    assert_samples(first, weights)


def test_the_last_picks_among_weights_from_the_smallest_to_the_largest_float() -> None:
    """Once the giants are gone, the smallest floats are drawn by weight: 1, 2 and 3 times 5e-324."""
    weights = np.asarray([SMALLEST, 1e308, 2 * SMALLEST, 4e307, 3 * SMALLEST])
    assert_samples(gt.sample(weights=repeated(weights), k=4, rng=15), weights)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("scale", [SMALLEST, 2.0**-1000, 2.0**1000])
def test_all_weights_tiny_or_huge(scale: float, k: int) -> None:
    assert_samples(gt.sample(weights=repeated(np.asarray([1, 2, 3, 4]) * scale), k=k, rng=16), [1, 2, 3, 4])


LARGEST = float(np.finfo(np.float64).max)
FINITE_LOGS = [
    [1e308, -1e308, -1e308],
    [LARGEST, -LARGEST, -LARGEST],
    [800.0, -800.0, -800.0],
    [0.0, -LARGEST, -LARGEST],
    [LARGEST, 0.0, 0.0],
]


@pytest.mark.parametrize("logs", FINITE_LOGS)
@pytest.mark.parametrize("method", ["keys", "blocks"])
def test_log_weights_from_end_to_end_of_the_floats(logs: list[float], method: str) -> None:
    """Even where their differences overflow, and without a warning: the two heavy items come first, in either order,
    and then the four light ones in every order. 1000 rows: errors of 39 % of the 24 orders are found.
    """
    draws = 1000
    assert _statistics.smallest_error_found(draws, 24) < 0.39
    picks = gt.sample(np.tile(logs, (draws, 2)), 6, method=method, rng=36)
    _statistics.assert_distribution(_statistics.count_rows(picks[:, :2], [(0, 3), (3, 0)]), [0.5, 0.5])
    orders = list(itertools.permutations((1, 2, 4, 5)))
    _statistics.assert_distribution(_statistics.count_rows(picks[:, 2:], orders), np.full(24, 1 / 24))


@pytest.mark.parametrize("logs", [*FINITE_LOGS, [LARGEST] * 3, [-LARGEST] * 3, [1e308, -1e308, -np.inf]])
def test_every_sampler_is_quiet_at_the_ends_of_the_floats(logs: list[float]) -> None:
    """pytest makes an error of each warning."""
    wanted = int(np.isfinite(logs).sum())
    row, many = np.asarray(logs), np.tile(logs, 30)
    for rng in (0, gt.CounterRNG(0)):
        assert len(set(gt.sample(row, wanted, rng=rng).tolist())) == wanted
        assert gt.sample_ragged(many, [0, 3, 90], wanted, rng=rng).shape == (2, wanted)
        assert gt.Sampler(many).sample(30 * wanted, 4, rng=rng).shape == (4, 30 * wanted)
    assert gt.sample(row, 5, method="blocks", on_short="pad", rng=0).tolist()[3:] == [-1, -1]
    assert gt.sample(row, wanted, method="blocks", where=[True, True, True], rng=0).shape == (wanted,)


@pytest.mark.parametrize("c", [1e30, -1e30, 2.0**52, 1e300])
def test_a_constant_beside_which_the_noise_vanishes(to_xp, c: float) -> None:
    """Log-weights c and c are a fair coin however large c is."""
    rows = gt.sample(to_xp(np.full((DRAWS, 2), c)), 2, rng=17)
    assert_samples(rows, [1.0, 1.0])


def test_mixed_rows_of_one_call_do_not_disturb_each_other() -> None:
    """A row with extreme weights sends its block another way; the neighbours keep their samples."""
    weights = np.tile(WEIGHTS, (6, 1))
    expected = gt.sample(weights=weights, k=4, rng=18)
    weights[3] = [SMALLEST, 1e308, 0, 1, 1e-300, 1e300, 5]
    np.testing.assert_array_equal(
        np.delete(gt.sample(weights=weights, k=4, rng=18), 3, axis=0), np.delete(expected, 3, 0)
    )


@pytest.mark.parametrize(
    "given",
    [{"weights": [0.0, 1.0, 0.0, 1e-300, -0.0, 5.0]}, {"log_weights": [-np.inf, 0.0, -np.inf, -700.0, -np.inf, 2.0]}],
    ids=["weights", "log_weights"],
)
@pytest.mark.parametrize("k", [1, 3])
def test_an_item_of_weight_zero_is_never_drawn_in_a_million_draws(given, k: int) -> None:
    ((argument, values),) = given.items()
    rows = gt.sample(**{argument: repeated(values, 1_000_000)}, k=k, rng=19)
    assert np.bincount(rows.ravel(), minlength=6)[[0, 2, 4]].sum() == 0
    assert (np.sort(rows, axis=-1) == [1, 3, 5]).all() or k == 1


def test_an_item_of_weight_zero_is_never_drawn_on_any_library(to_xp) -> None:
    weights = np.array(repeated([0.0, 1.0, 0.0, 5.0], 10_000))
    for rows in (
        gt.sample(weights=to_xp(weights), k=2, rng=20),
        gt.sample(to_xp(np.where(weights > 0, 0.0, -np.inf)), 2, rng=20),
    ):
        assert np.all(np.sort(api.host(rows), axis=-1) == [1, 3])


@pytest.mark.parametrize("n", [2, 1000, 70_000])
@pytest.mark.parametrize("k", [1, 2, 30])
def test_times_that_differ_in_their_last_bits_are_in_order(n: int, k: int) -> None:
    """Weights 1 + j 2^-52 and equal exponentials: the heaviest items come first, by one rounding unit each."""
    steps = np.random.default_rng(32).permutation(n)
    chosen = gt.sample(weights=1 + steps * 2.0**-52, k=min(k, n), rng=ConstantGenerator(1.0))
    assert steps[chosen].tolist() == list(range(n - 1, n - 1 - min(k, n), -1))


# --- invariance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [-900, -500, -1, 1, 37, 500, 900])
def test_weights_times_a_power_of_two_give_the_same_indices(to_xp, m: int) -> None:
    weights = np.exp(2 * np.random.default_rng(21).normal(size=(50, 40)))
    expected = gt.sample(weights=weights, k=40, rng=gt.CounterRNG(21))
    scaled = gt.sample(weights=to_xp(weights * 2.0**m), k=40, rng=gt.CounterRNG(21))
    np.testing.assert_array_equal(api.host(scaled), expected)


@pytest.mark.parametrize("m", [-900, 900])
def test_long_rows_times_a_power_of_two_give_the_same_indices(m: int) -> None:
    weights = np.exp(2 * np.random.default_rng(22).normal(size=100_000))
    expected = gt.sample(weights=weights, k=300, rng=22)
    np.testing.assert_array_equal(gt.sample(weights=weights * 2.0**m, k=300, rng=22), expected)


@pytest.mark.parametrize("c", [-(2.0**40), -800.0, -1.0, 1.0, 650.0, 2.0**20, 2.0**40])
def test_log_weights_plus_a_constant_give_the_same_indices(to_xp, c: float) -> None:
    """The log-weights are multiples of 2^-10, so that the sum is exact."""
    log_weights = np.round(np.random.default_rng(23).normal(size=(50, 40)) * 2048) / 1024
    expected = gt.sample(log_weights, 40, rng=gt.CounterRNG(23))
    moved = gt.sample(to_xp(log_weights + c), 40, rng=gt.CounterRNG(23))
    np.testing.assert_array_equal(api.host(moved), expected)


def test_weights_and_log_weights_give_the_same_indices(to_xp) -> None:
    weights = np.exp(np.random.default_rng(24).normal(size=(50, 40)) * 3)
    by_weights = gt.sample(weights=to_xp(weights), k=40, rng=gt.CounterRNG(24))
    by_logs = gt.sample(to_xp(np.log(weights)), 40, rng=gt.CounterRNG(24))
    np.testing.assert_array_equal(api.host(by_weights), api.host(by_logs))


@pytest.mark.parametrize("k", range(5))
def test_smaller_samples_are_the_beginning_of_larger_ones(to_xp, k: int) -> None:
    log_weights = to_xp(np.random.default_rng(25).normal(size=(20, 5)))
    full = api.host(gt.sample(log_weights, 5, rng=gt.CounterRNG(25)))
    np.testing.assert_array_equal(api.host(gt.sample(log_weights, k, rng=gt.CounterRNG(25))), full[:, :k])


# --- the generator --------------------------------------------------------------------------------

NOTHING_TO_DRAW = [
    *((lambda rng, m=method: gt.sample(np.zeros(9), 0, method=m, rng=rng)) for method in ("auto", "keys", "blocks")),
    lambda rng: gt.sample(np.zeros((2, 9)), np.asarray([0, 0]), rng=rng),
    lambda rng: gt.sample(np.zeros((0, 9)), 3, rng=rng),
    lambda rng: gt.sample(np.zeros((0, 9)), 3, method="blocks", rng=rng),
    lambda rng: gt.sample(np.zeros(0), 0, rng=rng),
    lambda rng: gt.sample_ragged(np.zeros(9), [0, 4, 9], 0, rng=rng),
    lambda rng: gt.Sampler(np.zeros(9)).sample(0, 4, rng=rng),
    lambda rng: gt.Sampler(np.zeros(99)).sample(0, 4, rng=rng),
    lambda rng: gt.Sampler(np.zeros(99)).sample(3, (2, 0), rng=rng),
]


@pytest.mark.parametrize("call", NOTHING_TO_DRAW)
def test_where_there_is_nothing_to_draw_a_generator_stays_and_is_looked_at(call) -> None:
    """As with NumPy's own samplers; whatever the method."""
    rng = np.random.default_rng(34)
    before = rng.bit_generator.state
    assert call(rng).size == 0
    assert rng.bit_generator.state == before
    with pytest.raises(TypeError, match=r"rng = 1\.5 is not a seed"):
        call(1.5)


BAD_ROWS = [
    {"weights": np.zeros((3, 9)), "k": 1},
    {"weights": np.ones((3, 9)), "k": 10},
    {"weights": np.ones((3, 9)), "k": np.asarray([1, 2, 10])},
    {"weights": np.diag([1.0, 1.0, 0.0]), "k": np.asarray([1, 1, 1])},
    {"weights": np.asarray([[1.0, 1.0], [1.0, np.nan]]), "k": 1},
    {"weights": np.asarray([[1.0, 1.0], [1.0, -1.0]]), "k": 1},
    {"log_weights": np.asarray([[0.0, 0.0], [-1e9, -np.inf]]), "k": 2},
    {"log_weights": np.asarray([[0.0, 0.0], [np.inf, 0.0]]), "k": 1},
    {"log_weights": np.full(9, -np.inf), "k": 1},
]


@pytest.mark.parametrize("method", ["auto", "keys", "blocks"])
@pytest.mark.parametrize("arguments", BAD_ROWS)
def test_a_call_that_raises_leaves_the_generator_where_it_is(arguments, method: str) -> None:
    """Every check comes before the first draw, that of the number of items of positive weight included."""
    rng = np.random.default_rng(35)
    before = rng.bit_generator.state
    with pytest.raises(ValueError, match=r"weights|more than the n|pass numbers"):
        gt.sample(**arguments, method=method, rng=rng)
    assert rng.bit_generator.state == before


# --- shapes, dtypes and layouts -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "k", "axis", "expected"),
    [
        ((5,), 0, -1, (0,)),
        ((0,), 0, -1, (0,)),
        ((1,), 1, -1, (1,)),
        ((5,), 5, 0, (5,)),
        ((2, 0), 0, -1, (2, 0)),
        ((0, 4), 2, -1, (0, 2)),
        ((2, 3, 4), 2, 0, (3, 4, 2)),
        ((2, 3, 4), 2, 1, (2, 4, 2)),
        ((2, 3, 4), 2, -1, (2, 3, 2)),
    ],
)
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
def test_shapes_and_edges(to_xp, library, argument, shape, k, axis, expected) -> None:
    rows = gt.sample(**{argument: to_xp(np.ones(shape))}, k=k, axis=axis, rng=26)
    assert rows.shape == expected
    assert api.namespace_of(rows) is library.xp
    assert api.device_of(rows) == library.device
    assert library.xp.isdtype(rows.dtype, "signed integer")
    items = api.host(rows)
    assert np.all((items >= 0) & (items < shape[axis]))
    ordered = np.sort(items, axis=-1)
    assert np.all(ordered[..., 1:] != ordered[..., :-1])


def test_all_items_are_a_permutation(to_xp) -> None:
    rows = api.host(gt.sample(to_xp(np.zeros((30, 9))), 9, rng=27))
    assert np.all(np.sort(rows, axis=-1) == np.arange(9))


@pytest.mark.parametrize("name", layouts(np.zeros((1, 1))))
@pytest.mark.parametrize("argument", ["weights", "log_weights"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_the_layout_does_not_matter_and_the_input_stays(dtype, argument, name) -> None:
    """Equal to the sample of the contiguous float64 copy."""
    values = (np.random.default_rng(28).exponential(size=(7, 9)) * 50 + 1).astype(dtype)
    variant = layouts(values)[name]
    before = np.asarray(variant).tobytes()
    rows = gt.sample(**{argument: variant}, k=4, rng=28)
    np.testing.assert_array_equal(rows, gt.sample(**{argument: values.astype(np.float64)}, k=4, rng=28))
    assert np.asarray(variant).tobytes() == before


@pytest.mark.parametrize("n", [200, 200_000])
def test_the_layout_of_long_rows_does_not_matter(n: int) -> None:
    """Large enough to be worked on in blocks, which must not change the input either."""
    values = np.random.default_rng(29).exponential(size=(400_000 // n, n))
    expected = gt.sample(weights=values, k=20, rng=29)
    for name, variant in layouts(values).items():
        before = np.asarray(variant).tobytes() if name != "list" else None
        np.testing.assert_array_equal(gt.sample(weights=variant, k=20, rng=29), expected)
        assert before is None or np.asarray(variant).tobytes() == before


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_large_batches_in_any_order_of_axes(order: tuple[int, int, int]) -> None:
    """Every row keeps its place and its draw, whatever the strides: equal to the contiguous copy."""
    values = np.random.default_rng(33).exponential(size=(60, 70, 30)).transpose(order)
    expected = gt.sample(weights=np.ascontiguousarray(values), k=5, rng=33)
    np.testing.assert_array_equal(gt.sample(weights=values, k=5, rng=33), expected)
    np.testing.assert_array_equal(gt.sample(weights=np.moveaxis(values, -1, 0), k=5, rng=33, axis=0), expected)


def test_a_broadcast_batch_is_not_copied_whole() -> None:
    """2000 rows of 10,000 items would be 160 MB; the peak stays below 8 MB."""
    batch = np.broadcast_to(np.ones(10_000), (20, 100, 10_000))
    tracemalloc.start()
    try:
        gt.sample(weights=batch, k=3, rng=30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6


# --- the k-hot vector -----------------------------------------------------------------------------


def test_k_hot_has_ones_at_the_indices(to_xp, assert_close) -> None:
    indices = np.asarray([[3, 1], [0, 2], [2, 3]])
    expected = np.zeros((3, 5))
    for row, items in enumerate(indices):
        expected[row, items] = 1.0
    floating = to_xp([0.0], None).dtype
    assert_close(gt.k_hot(to_xp(indices), 5, dtype=floating), expected)
    batch = gt.k_hot(to_xp(indices[None].repeat(2, axis=0)), 5, dtype=floating)
    assert_close(batch, np.stack([expected, expected]))


def test_k_hot_has_the_default_dtype_of_the_library(to_xp, xp, device) -> None:
    assert gt.k_hot(to_xp([1]), 3).dtype == api.default_float(xp, device)


@pytest.mark.parametrize(("shape", "n"), [((0,), 4), ((3, 0), 4), ((0, 2), 4), ((0,), 0)])
def test_k_hot_of_nothing(to_xp, shape, n) -> None:
    result = gt.k_hot(to_xp(np.zeros(shape, np.int64)), n)
    assert result.shape == (*shape[:-1], n)
    assert not np.any(api.host(result))


def test_k_hot_sums_to_k_and_counts_the_samples() -> None:
    rows = gt.sample(weights=repeated(WEIGHTS, 1000), k=3, rng=31)
    hot = gt.k_hot(rows, 7)
    assert np.all(hot.sum(axis=-1) == 3)
    np.testing.assert_array_equal(hot.sum(axis=0), np.bincount(rows.ravel(), minlength=7))


@pytest.mark.parametrize("mask", [-1e17, -1e30, float(np.finfo(np.float64).min)])
def test_masked_items_are_drawn_fairly_once_the_others_are_gone(to_xp, mask) -> None:
    """Beside -1e17 the noise is below the rounding of a key, yet it must decide. 3 cells."""
    logs = np.broadcast_to([0.0, mask, mask, mask], (DRAWS, 4))
    drawn = api.host(gt.sample(to_xp(logs), 2, rng=np.random.default_rng(5)))
    assert np.all(drawn[:, 0] == 0)
    _statistics.assert_distribution(np.bincount(drawn[:, 1], minlength=4)[1:], np.full(3, 1 / 3))


def test_a_long_row_with_many_selected_is_the_order_of_the_same_draws() -> None:
    """n = 100,000, k = 9,000: the row goes in parts, and each part must give all that it has among the first."""
    weights = np.exp(np.random.default_rng(6).normal(size=100_000))
    exponentials = np.random.default_rng(7).standard_exponential(100_000)
    expected = np.argsort(exponentials / weights)[:9000]
    np.testing.assert_array_equal(gt.sample(weights=weights, k=9000, rng=np.random.default_rng(7)), expected)


def test_the_others_are_drawn_by_weight_beside_a_gigantic_log_weight(to_xp) -> None:
    """The weight of item 2 is e^5 times that of item 1, whatever is beside them: 5 standard errors of 3000 rows."""
    for gigantic in (1e15, 1e17, 1e30, 1e300):
        rows = np.broadcast_to(np.asarray([gigantic, 0.0, 5.0]), (3000, 3))
        second = api.host(gt.sample(to_xp(np.array(rows)), 2, rng=1))[:, 1]
        p = 1.0 / (1.0 + np.exp(-5.0))
        assert abs(np.mean(second == 2) - p) < 5 * np.sqrt(p * (1 - p) / 3000), gigantic


def test_a_tie_of_rounded_times_is_decided_by_what_was_rounded_off() -> None:
    """1 - 0 and 1 - 1e-20 are the same number; the second is the earlier one, as the first is in the row below."""
    logs = np.asarray([[0.0, 1e-20], [1e-20, 0.0]])
    first = _sample_by_keys._first_by_log_times(np.ones((2, 2)), logs, 1, np)
    assert first.ravel().tolist() == [1, 0]
