"""The relaxed top-k and its derivatives: time, memory, accuracy of float32."""

import numpy as np

import gumbeltopk as gt

from .common import generator, interleaved_ratio, relative_error

SHAPES = [(1000, 100, 9), (64, 1000, 10), (64, 5000, 5)]  # rows, n, k
DTYPES = ["float32", "float64"]
TEMPERATURE = 0.5


def random_keys(rows, n, dtype):
    """Gumbel keys of equal weights."""
    return generator().gumbel(size=(rows, n)).astype(dtype)


def textbook(keys, k, temperature):
    """Equations 3 to 5 as they stand in the paper, each step over the whole array."""
    alpha, relaxed = keys, 0.0
    for _ in range(k):
        scaled = alpha / temperature
        exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        p = exponentials / exponentials.sum(axis=-1, keepdims=True)
        alpha = alpha + np.log1p(-p)
        relaxed = relaxed + p
    return relaxed


class RelaxedTopK:
    params = (SHAPES, DTYPES)
    param_names = ("rows, n, k", "dtype")

    def setup(self, shape, dtype):
        rows, n, self.k = shape
        self.keys = random_keys(rows, n, dtype)
        self.direction = generator().normal(size=(rows, n)).astype(dtype)
        _, self.residuals = gt.relaxed_topk.fwd(self.keys, self.k, temperature=TEMPERATURE)

    def time_value(self, shape, dtype):
        gt.relaxed_topk(self.keys, self.k, temperature=TEMPERATURE)

    def time_fwd(self, shape, dtype):
        gt.relaxed_topk.fwd(self.keys, self.k, temperature=TEMPERATURE)

    def time_vjp(self, shape, dtype):
        gt.relaxed_topk.vjp(self.residuals, self.direction)

    def time_jvp(self, shape, dtype):
        gt.relaxed_topk.jvp(self.residuals, self.direction)

    def track_ratio_textbook(self, shape, dtype):
        return interleaved_ratio(
            lambda: textbook(self.keys, self.k, TEMPERATURE),
            lambda: gt.relaxed_topk(self.keys, self.k, temperature=TEMPERATURE),
        )

    track_ratio_textbook.unit = "times as fast as eqs. 3-5 in NumPy"


class RelaxedTopKMemory:
    params = (SHAPES, DTYPES)
    param_names = ("rows, n, k", "dtype")

    def setup(self, shape, dtype):
        rows, n, self.k = shape
        self.keys = random_keys(rows, n, dtype)

    def peakmem_value(self, shape, dtype):
        gt.relaxed_topk(self.keys, self.k, temperature=TEMPERATURE)

    def peakmem_fwd_and_vjp(self, shape, dtype):
        value, residuals = gt.relaxed_topk.fwd(self.keys, self.k, temperature=TEMPERATURE)
        gt.relaxed_topk.vjp(residuals, value)


class RelaxedTopKAccuracy:
    """float32 against float64 on the same keys: the norm of the difference over that of the float64 result."""

    params = (SHAPES, [0.03, 0.5, 5.0])
    param_names = ("rows, n, k", "temperature")

    def setup(self, shape, temperature):
        rows, n, k = shape
        self.cotangent = generator().normal(size=(rows, n)).astype("float32")
        single = random_keys(rows, n, "float32")
        self.single, self.double = (
            gt.relaxed_topk.fwd(keys, k, temperature=temperature) for keys in (single, single.astype("float64"))
        )

    def track_error_value(self, shape, temperature):
        return relative_error(self.single[0], self.double[0])

    def track_error_vjp(self, shape, temperature):
        return relative_error(
            gt.relaxed_topk.vjp(self.single[1], self.cotangent),
            gt.relaxed_topk.vjp(self.double[1], self.cotangent.astype("float64")),
        )

    track_error_value.unit = track_error_vjp.unit = "relative error of float32"
