"""Keys and samples without replacement; ratios to NumPy's `Generator.choice`."""

import numpy as np

import gumbeltopk as gt

from .common import generator, interleaved_ratio, random_weights

SHAPES = [(4096, 100, 10), (1, 1_000_000, 10)]  # rows, n, k
FORMS = ["weights", "log_weights"]
DTYPES = ["float32", "float64"]


def sampler(weights, form, k, rng):
    """A call of `gt.sample` without arguments."""
    given = {form: weights if form == "weights" else np.log(weights)}
    return lambda: gt.sample(k=k, rng=rng, **given)


class Sample:
    params = (SHAPES, FORMS, DTYPES)
    param_names = ("rows, n, k", "form", "dtype")

    def setup(self, shape, form, dtype):
        rows, n, k = shape
        self.sample = sampler(random_weights(rows, n).astype(dtype), form, k, generator())
        self.sample()  # the first call of a process imports what it needs

    def time_sample(self, shape, form, dtype):
        self.sample()

    def peakmem_sample(self, shape, form, dtype):
        self.sample()


class GumbelKeys:
    params = ([(4096, 100), (1, 1_000_000)], DTYPES)
    param_names = ("rows, n", "dtype")

    def setup(self, shape, dtype):
        self.log_weights = np.log(random_weights(*shape)).astype(dtype)
        self.rng = generator()
        gt.gumbel_keys([0.0], rng=self.rng)  # the first call of a process imports what it needs

    def time_gumbel_keys(self, shape, dtype):
        gt.gumbel_keys(self.log_weights, rng=self.rng)

    def peakmem_gumbel_keys(self, shape, dtype):
        gt.gumbel_keys(self.log_weights, rng=self.rng)


class SampleAgainstChoice:
    """One call of `gt.sample` against a loop of `Generator.choice`: the same distribution, float64, int64 indices.

    `choice` is given probabilities that are already normalised; nothing is converted on its time.
    """

    params = (SHAPES, FORMS)
    param_names = ("rows, n, k", "form")
    timeout = 120

    def setup(self, shape, form):
        rows, n, k = shape
        weights = random_weights(rows, n)
        self.sample = sampler(weights, form, k, generator())
        self.probabilities = weights / weights.sum(axis=-1, keepdims=True)
        self.rng = generator()

    def choice_loop(self, n, k):
        indices = np.empty((len(self.probabilities), k), dtype=np.int64)
        for row, probabilities in enumerate(self.probabilities):
            indices[row] = self.rng.choice(n, k, replace=False, p=probabilities)
        return indices

    def track_ratio_choice_loop(self, shape, form):
        _, n, k = shape
        return interleaved_ratio(lambda: self.choice_loop(n, k), self.sample)

    track_ratio_choice_loop.unit = "times as fast as Generator.choice"
