"""Both derivatives of one block of rows: inputs to points, the linear recursion, and back to all items.

An item's tangent or adjoint is g E(v) + D(v), g its own input: the recursion follows E and D at the nodes, with the
node weights of the measures sum g delta_v and sum delta_v. What matters of the inputs of a row is their differences, so
that of the heaviest item is subtracted from all: a large constant in g would take the digits of the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gumbeltopk._numpy.compression import linear_recursion, measure
from gumbeltopk._numpy.compression.block import ORDER, Block, bins_of, write_heavy
from gumbeltopk._numpy.compression.loops import NUMPY, Loops
from gumbeltopk._numpy.compression.tiles import Tiles

Floats = npt.NDArray[Any]


def vjp(
    block: Block, power: float | None, cotangent: Any, with_temperature: bool, gradient: Any, loops: Loops = NUMPY
) -> Floats:
    """Write the gradient by the keys (rows, n); returns that by the temperature (rows, 1)."""
    beta = 1.0 / block.temperature if power is None else power
    expansion = _expansion(block, loops)
    heavy = expansion.of_heavy(cotangent)
    centre = heavy[:, :1].copy()
    columns = expansion.columns(cotangent, heavy - centre, centre)
    x, by_logs = loops.reverse(block.states, block.weights, columns, beta, with_temperature)
    if block.v.dtype == np.float32 and not np.isfinite(x).all():  # beyond float32, if the cotangent is finite
        wide = block._replace(v=block.v.astype(np.float64), states=block.states.astype(np.float64))
        in_float64 = np.empty(block.v.shape)
        by_temperature = vjp(wide, power, cotangent.astype(np.float64), with_temperature, in_float64, loops)
        gradient[...] = in_float64
        return by_temperature
    expansion.read(x, cotangent, centre, gradient)
    by_temperature = np.zeros((len(gradient), 1))
    if with_temperature:
        # beta_bar = sum x_1 r + sum_j sum x_{j+1} log(1 - p^j); sum x_1 = 0, so that r - thr = t log v will do for r.
        by_keys = np.vecdot(gradient, _log_v_of_all(block), dtype=np.float64)[:, None] * block.temperature
        by_temperature = -(by_logs[:, None] + by_keys) / block.temperature**2
    if np.any(beta != 1.0):
        np.multiply(gradient, np.asarray(beta, dtype=gradient.dtype), out=gradient)
    return by_temperature


def jvp(
    block: Block,
    power: float | None,
    key_tangent: Any,
    temperature_tangent: Floats,
    tangent: Any,
    loops: Loops = NUMPY,
) -> None:
    """Write the tangent of the value (rows, n); that of the temperature is (rows, 1) or (1, 1)."""
    beta = 1.0 / block.temperature if power is None else power
    dbeta = -temperature_tangent / block.temperature**2
    expansion = _expansion(block, loops)
    inputs = key_tangent * np.asarray(beta, dtype=key_tangent.dtype)
    heavy = beta * expansion.of_heavy(key_tangent)
    if np.any(dbeta):  # l^1 = beta r: dl^1 = beta dr + dbeta r, where r - thr = t log v will do for r
        by_log_v = dbeta * block.temperature
        inputs = inputs + by_log_v.astype(inputs.dtype) * _log_v_of_all(block)
        heavy = heavy + by_log_v * np.where(np.isfinite(block.log_v), block.log_v, 0.0)
    # As the light items have it, in their dtype.
    centre = np.take_along_axis(inputs, block.kept[:, :1], axis=1).astype(np.float64)
    columns = expansion.columns(inputs, heavy - heavy[:, :1], centre)
    by_points = linear_recursion.tangent(block.states, block.weights, columns, beta, dbeta)
    expansion.read(by_points, inputs, centre, tangent)


def _log_v_of_all(block: Block) -> Any:
    """(r - thr) / t of all items (rows, n); 0 for those whose v has vanished, and which do not matter."""
    logs = np.where(block.v > 0.0, np.log(block.v), 0.0)
    heavy = np.where(np.isfinite(block.log_v), block.log_v, 0.0)
    np.put_along_axis(logs, block.kept, heavy.astype(logs.dtype), axis=1)
    return logs


class _Expansion(NamedTuple):
    """The way from all items to a block's points, and back; g is an input of all items (rows, n)."""

    block: Block
    bins: measure.Bins
    tiles: Tiles

    def of_heavy(self, g: Any) -> Floats:
        """The inputs of the heavy items (rows, m)."""
        return np.take_along_axis(g, self.block.kept, axis=1).astype(np.float64)

    def columns(self, g: Any, heavy: Floats, centre: Floats) -> linear_recursion.Columns:
        """The columns of a derivative for inputs `g` - `centre` (rows, 1), which are `heavy` at the heavy items."""
        sums = measure.products(self.block.v, int(self.block.degree), g, _narrow(centre, g), self.tiles)
        return columns_of_inputs(self.bins, heavy, sums, self.block.weights)

    def read(self, columns: Floats, g: Any, centre: Floats, out: Any) -> None:
        """Write (g - centre) E(v) + D(v) of all items (rows, n)."""
        block, bins = self.block, self.bins
        at = read_columns(bins, columns, int(block.degree))
        measure.evaluate_pair(at.e, at.d, block.v, g, _narrow(centre, g), out, self.tiles)
        binned = g[0, block.kept[0, bins.binned]].astype(np.float64) - centre[0, 0]
        write_heavy(out, block.kept, bins, at.items, at.binned(binned))


def _narrow(centre: Floats, g: Any) -> Any:
    return centre.astype(g.dtype)


def _expansion(block: Block, loops: Loops) -> _Expansion:
    bins = bins_of(block.log_v, int(block.out_of_bins), ORDER[block.v.dtype.itemsize])
    return _Expansion(block, bins, loops.tiles)


def columns_of_inputs(bins: measure.Bins, heavy: Floats, sums: Floats, weights: Floats) -> linear_recursion.Columns:
    """The columns for inputs g of the heavy items (rows, m) and power sums of g v^q over the light ones (rows, P)."""
    of_bins = measure.bin_weights(bins, heavy[0, bins.binned])
    node_weights = np.concatenate(
        [np.broadcast_to(of_bins, (len(sums), len(of_bins))), measure.node_weights(sums)], axis=1
    )
    return linear_recursion.columns(heavy[:, bins.exact], node_weights, weights)


class Reading(NamedTuple):
    """The columns of a derivative, ready to be read at all items."""

    items: Floats  # (rows, items): of the heavy items that are in no bin
    e_binned: Floats  # (binned,): E and D of those that are
    d_binned: Floats
    e: Floats  # (rows, P): coefficients of E and D of the light items
    d: Floats

    def binned(self, g: Floats) -> Floats:
        """g E(v) + D(v) of the binned items (binned,)."""
        return g * self.e_binned + self.d_binned


def read_columns(bins: measure.Bins, columns: Floats, degree: int) -> Reading:
    """From the values of all columns (rows, columns)."""
    items = len(bins.exact)
    at_items, e, d = np.split(columns, [items, (items + columns.shape[1]) // 2], axis=1)
    in_bins = e.shape[1] - degree
    e_binned, d_binned = (measure.read_bins(bins, values[0, :in_bins]) for values in (e, d))
    return Reading(
        at_items, e_binned, d_binned, measure.coefficients(e[:, in_bins:]), measure.coefficients(d[:, in_bins:])
    )
