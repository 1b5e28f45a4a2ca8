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


class SampleAgainstOnePass:
    """A few items of ten million: all of the work is one look at the weights, checks included."""

    params = ([1, 10, 1000],)
    param_names = ("k",)
    timeout = 120

    def setup(self, k):
        self.weights = random_weights(1, 10_000_000)[0].astype(np.float32)
        self.sample = sampler(self.weights, "weights", k, generator())

    def time_sample(self, k):
        self.sample()

    def peakmem_sample(self, k):
        self.sample()

    def track_ratio_one_pass(self, k):
        return interleaved_ratio(self.sample, lambda: np.add.reduce(self.weights))

    track_ratio_one_pass.unit = "times as long as np.add.reduce"

    def track_ratio_choice(self, k):
        rng, probabilities = generator(), self.weights / self.weights.sum(dtype=np.float64)
        n = len(probabilities)
        return interleaved_ratio(lambda: rng.choice(n, k, replace=False, p=probabilities), self.sample)

    track_ratio_choice.unit = "times as fast as Generator.choice"


class ManyDraws:
    """A thousand samples of 10 items from one distribution."""

    timeout = 120

    def setup(self):
        weights = random_weights(1, 100_000)[0]
        self.probabilities, self.law, self.rng = weights / weights.sum(), gt.Sampler(weights=weights), generator()

    def draw(self):
        return self.law.sample(10, 1000, rng=self.rng)

    def choice_loop(self):
        n = len(self.probabilities)
        return [self.rng.choice(n, 10, replace=False, p=self.probabilities) for _ in range(1000)]

    def time_sampler(self):
        self.draw()

    def track_ratio_choice_loop(self):
        return interleaved_ratio(self.choice_loop, self.draw)

    track_ratio_choice_loop.unit = "times as fast as Generator.choice"


class Ragged:
    """A million rows of 4 to 16 items."""

    timeout = 120

    def setup(self):
        self.offsets = np.concatenate([[0], np.cumsum(generator().integers(4, 17, size=1_000_000))])
        self.weights, self.rng = random_weights(1, self.offsets[-1])[0], generator()

    def time_sample_ragged(self):
        gt.sample_ragged(weights=self.weights, offsets=self.offsets, k=3, rng=self.rng)

    def peakmem_sample_ragged(self):
        gt.sample_ragged(weights=self.weights, offsets=self.offsets, k=3, rng=self.rng)


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
