"""Relaxed top-k of a row in shards: that of the gathered row, for all chunks; what is exchanged; what is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gumbeltopk as gt
from gumbeltopk._numpy.compression import sharded
from tests import _reference

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
gtd = pytest.importorskip("gumbeltopk.dask")

REPRODUCIBLE = settings(deadline=None, derandomize=True, max_examples=40)


@pytest.fixture(autouse=True)
def _on_one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


def in_chunks(array, chunks):
    return da.from_array(np.asarray(array), chunks=chunks)


def assert_agrees(keys, k: int, temperature: float, chunks, candidates: int | None = None, seed: int = 0) -> None:
    """Value, VJP and JVP are those of the gathered row: each item's value to 1e-12, derivatives normwise."""
    rng = np.random.default_rng(seed)
    cotangent, tangent = rng.normal(size=(2, len(keys)))
    a, residuals = gt.relaxed_topk.fwd(keys, k, temperature=temperature)
    gradient, direction = gt.relaxed_topk.vjp(residuals, cotangent), gt.relaxed_topk.jvp(residuals, tangent)
    relaxed, own = gtd.relaxed_topk.fwd(
        in_chunks(keys, chunks), k, temperature=temperature, candidates=candidates, split_every=2
    )
    lazy = (
        relaxed,
        gtd.relaxed_topk.vjp(own, in_chunks(cotangent, max(1, len(keys) // 3))),
        gtd.relaxed_topk.jvp(own, in_chunks(tangent, chunks)),
    )
    assert all(part.shape == (len(keys),) for part in lazy)
    assert lazy[0].chunks == in_chunks(keys, chunks).chunks
    own_a, own_gradient, own_direction = dask.compute(*lazy)
    np.testing.assert_allclose(own_a, a, rtol=1e-12, atol=1e-300)
    for actual, expected in ((own_gradient, gradient), (own_direction, direction)):
        assert np.linalg.norm(actual - expected) <= 1e-12 * np.linalg.norm(expected)


# --- the gathered row -----------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0, 100.0])
@pytest.mark.parametrize("k", [1, 5, 100, 700])
def test_a_row_in_shards_is_the_gathered_row(k: int, temperature: float) -> None:
    """Shards of 1 to 25,000 items, with and without light ones of their own; 0 and 700 steps, in bins and not."""
    keys = np.random.default_rng(k).gumbel(size=40_000) * 1.5
    keys[::17] = -np.inf
    assert_agrees(keys, k, temperature, (25_000, 1, 999, 6000, 8000))


@REPRODUCIBLE
@given(data=st.data())
def test_every_chunking_of_small_rows(data) -> None:
    """With candidates for 6 k items, rows of 60 to 300 items are compressed, too; ties and masked items included."""
    n = data.draw(st.integers(60, 300))
    k = data.draw(st.integers(1, 6))
    temperature = data.draw(st.sampled_from([1.0, 1.7, 5.0, 300.0]))
    keys = np.round(np.random.default_rng(data.draw(st.integers(0, 1000))).normal(size=n) * 3, 1)
    keys[data.draw(st.lists(st.integers(0, n - 1), max_size=10))] = -np.inf
    cuts = data.draw(st.lists(st.integers(0, n), max_size=6))
    chunks = tuple(np.diff([0, *sorted(cuts), n]).tolist())
    assert_agrees(keys, k, temperature, (chunks,), candidates=6 * k)


@pytest.mark.parametrize("n", [1, 7, 2047, 2048, 2049])
def test_short_rows_are_gathered(n: int) -> None:
    """Also where all items are selected at a temperature that needs logarithms."""
    keys = np.random.default_rng(n).normal(size=n)
    assert_agrees(keys, min(3, n), 0.7, max(1, n // 3))
    if n < 10:
        assert_agrees(keys, n, 1e-3, max(1, n // 2))


def test_against_exact_arithmetic() -> None:
    """60 items in 7 shards, 20 of them heavy, against a recursion of 60 digits and more."""
    keys = np.random.default_rng(3).gumbel(size=60)
    steps = _reference.successive_softmax(keys, 3, 0.8)
    exact = [float(sum(step[i] for step in steps)) for i in range(60)]
    own = gtd.relaxed_topk(in_chunks(keys, 9), 3, temperature=0.8, candidates=20).compute()
    np.testing.assert_allclose(own, exact, rtol=1e-13)


def test_float32_stays_and_nothing_is_selected_of_nothing() -> None:
    keys = np.random.default_rng(0).gumbel(size=5000).astype(np.float32)
    relaxed, residuals = gtd.relaxed_topk.fwd(in_chunks(keys, 900), 5)
    gradient = gtd.relaxed_topk.vjp(residuals, in_chunks(keys, 900))
    assert relaxed.dtype == relaxed.compute().dtype == gradient.dtype == gradient.compute().dtype == np.float32
    np.testing.assert_allclose(relaxed, gt.relaxed_topk(keys.astype(np.float64), 5), rtol=1e-6)
    assert_agrees(np.zeros(5), 0, 1.0, 2)
    assert gtd.relaxed_topk(in_chunks(np.empty(0), 1), 0).compute().shape == (0,)


def test_derivatives_are_adjoint() -> None:
    """<v, J u> = <J^T v, u>."""
    rng = np.random.default_rng(1)
    keys, u, v = (in_chunks(array, 700) for array in rng.normal(size=(3, 9000)))
    _, residuals = gtd.relaxed_topk.fwd(keys, 300, temperature=0.6)
    forward, backward = dask.compute(
        da.dot(v, gtd.relaxed_topk.jvp(residuals, u)), da.dot(gtd.relaxed_topk.vjp(residuals, v), u)
    )
    assert forward == pytest.approx(backward, rel=1e-12)


def test_a_cotangent_may_depend_on_the_value() -> None:
    keys = np.random.default_rng(2).gumbel(size=5000)
    a, residuals = gt.relaxed_topk.fwd(keys, 4)
    relaxed, own = gtd.relaxed_topk.fwd(in_chunks(keys, 800), 4)
    gradient = gtd.relaxed_topk.vjp(own, 2 * relaxed).compute()
    np.testing.assert_allclose(gradient, gt.relaxed_topk.vjp(residuals, 2 * a), rtol=1e-9, atol=1e-18)


# --- what is exchanged ----------------------------------------------------------------------------


def test_the_number_of_tasks_does_not_grow_with_k() -> None:
    """Value and VJP of 9 blocks: about 90 tasks. The step-by-step form has 9 for each of the 500 steps."""
    relaxed, residuals = gtd.relaxed_topk.fwd(in_chunks(np.zeros(9000), 1000), 500)
    assert len(dict(gtd.relaxed_topk.vjp(residuals, relaxed).__dask_graph__())) < 150


@pytest.mark.parametrize("k", [1, 10, 300])
def test_a_summary_is_small_and_its_size_does_not_depend_on_the_shard(k: int) -> None:
    heavy = sharded.heavy_items(k)
    keys = np.random.default_rng(k).normal(size=100_000)
    summary = sharded.summarise(keys, 0, heavy, 1.0)
    assert sum(part.size for part in summary) == 2 * heavy + sharded.DEGREE


def test_summaries_merge_in_any_order_to_that_of_the_row() -> None:
    keys = np.random.default_rng(7).normal(size=3000)
    whole = sharded.summarise(keys, 0, 100, 0.5)
    parts = [sharded.summarise(keys[first : first + 400], first, 100, 0.5) for first in range(0, 3000, 400)]
    merge = functools.partial(sharded.merge, heavy=100, temperature=0.5)
    for merged in (functools.reduce(merge, parts), functools.reduce(merge, parts[::-1])):
        np.testing.assert_array_equal(merged.keys, whole.keys)
        np.testing.assert_array_equal(merged.places, whole.places)
        np.testing.assert_allclose(merged.power_sums, whole.power_sums, rtol=1e-13)


def test_power_sums_are_those_of_the_light_items() -> None:
    keys = np.random.default_rng(8).normal(size=500)
    summary = sharded.summarise(keys, 0, 40, 0.7)
    light = np.sort(keys)[:-40]
    v = np.exp((light - np.sort(keys)[-40]) / 0.7)
    np.testing.assert_allclose(summary.power_sums, [np.sum(v**q) for q in range(1, 16)], rtol=1e-13)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 50.0])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 5.0, 100.0])
@pytest.mark.parametrize("k", [1, 40, 400])
def test_the_default_candidates_suffice_at_temperatures_of_one_and_more(
    k: int, spread: float, temperature: float
) -> None:
    """All ties, nearly ties, and rows where a few items have all the weight. CompressionError would fail this."""
    keys = spread * np.random.default_rng(k).normal(size=12_000)
    if spread * 5 / temperature < 600:  # beyond, the row needs logarithms
        assert gtd.relaxed_topk(in_chunks(keys, 2500), k, temperature=temperature).sum().compute() == pytest.approx(k)


# --- what is refused ------------------------------------------------------------------------------


def test_a_row_that_cannot_be_compressed_is_an_error_and_gathering_is_the_way_out() -> None:
    keys = np.random.default_rng(9).gumbel(size=5000)
    lazy = gtd.relaxed_topk(in_chunks(keys, 1000), 100, temperature=1e-3)
    with pytest.raises(gtd.CompressionError, match=r"candidates = 2048 do not suffice .* k = 100, temperature = 0.001"):
        lazy.compute()
    assert issubclass(gtd.CompressionError, ValueError)
    assert_agrees(keys, 100, 1e-3, 1000, candidates=5001)


def test_too_few_candidates_are_noticed() -> None:
    """150 steps among 300 ties: each item has a = 1/2, far too much for a light one."""
    with pytest.raises(gtd.CompressionError, match="candidates = 150"):
        gtd.relaxed_topk(in_chunks(np.zeros(300), 100), 150, candidates=150).compute()


def test_bad_keys_are_named_by_their_index_in_the_row() -> None:
    keys = np.zeros(10)
    keys[7] = np.nan
    with pytest.raises(ValueError, match=r"keys\[7\] = nan; pass finite numbers, or -inf for an item that is never"):
        gtd.relaxed_topk(in_chunks(keys, 4), 2).compute()
    keys[:] = -np.inf
    keys[3] = 1.0
    with pytest.raises(ValueError, match=r"k = 2 is more than the 1 finite entries of keys"):
        gtd.relaxed_topk(in_chunks(keys, 4), 2).compute()


def test_what_is_known_at_the_call_is_refused_at_the_call() -> None:
    keys = in_chunks(np.zeros(10), 4)
    with pytest.raises(TypeError, match=r"keys is of type ndarray; pass a Dask array, or call gumbeltopk.relaxed_topk"):
        gtd.relaxed_topk(np.zeros(10), 2)
    with pytest.raises(ValueError, match=r"keys has 2 dimensions; pass shape \(n,\)"):
        gtd.relaxed_topk(keys[None], 2)
    with pytest.raises(ValueError, match=r"k = 11 is more than the n = 10 items"):
        gtd.relaxed_topk(keys, 11)
    with pytest.raises(ValueError, match=r"temperature = 0.0 must be positive"):
        gtd.relaxed_topk(keys, 2, temperature=0.0)
    with pytest.raises(ValueError, match=r"candidates = 1 is less than k = 2"):
        gtd.relaxed_topk(keys, 2, candidates=1)
    _, residuals = gtd.relaxed_topk.fwd(keys, 2)
    with pytest.raises(ValueError, match=r"the cotangent has shape \(9,\), but the value has \(10,\)"):
        gtd.relaxed_topk.vjp(residuals, keys[:9])
    with pytest.raises(TypeError, match=r"of two array libraries"):
        gtd.relaxed_topk.vjp(residuals, np.zeros(10))
    with pytest.raises(ValueError, match=r"these residuals come from gumbeltopk.relaxed_topk.fwd"):
        gtd.relaxed_topk.vjp(gt.relaxed_topk.fwd(np.zeros(10), 2)[1], np.zeros(10))
