"""The direct form in loops that numba compiles: all that is true of NumPy's kernels is true of these.

The tests of `test_numpy_direct` run here again with the compiled kernels. What follows them is about the loops alone.
"""

from __future__ import annotations

from typing import Any

import pytest

import gumbeltopk as gt
from gumbeltopk._numpy import direct

pytest.importorskip("numba", reason="numba is not installed: pip install gumbeltopk[numba]")

from gumbeltopk._numba.direct_kernels import NUMBA
from tests.test_numpy_direct import (  # noqa: F401
    CASES,
    DTYPES,
    TEMPERATURES,
    by_direct_form,
    column,
    directions_for,
    key_families,
    norms,
    test_a_gradient_that_cancels_in_float32_is_computed_again_in_float64,
    test_a_temperature_for_each_row,
    test_a_trajectory_holds_no_k_x_n_array,
    test_a_trajectory_keeps_nothing_of_the_caller,
    test_adjoint_identity,
    test_finite_for_every_finite_input,
    test_float32,
    test_float32_only_where_it_is_accurate,
    test_float64,
    test_layouts_of_the_input_do_not_matter,
    test_many_rows,
    test_rows_alone_are_bitwise_the_rows_of_a_batch,
    test_rows_fall_back_one_by_one,
    test_the_largest_gaps_that_there_are,
    test_threads_change_no_bit,
    test_zero_weight_items_change_nothing,
)


@pytest.fixture(autouse=True, scope="module")
def compiled_kernels() -> Any:
    """`direct` and the public functions use the compiled kernels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct.forward, "__defaults__", (NUMBA,))
        patch.setattr(direct.vjp, "__defaults__", (True, NUMBA))
        patch.setattr(direct.jvp, "__defaults__", (NUMBA,))
        gt.use_numba(True)
        yield
        gt.use_numba(None)
