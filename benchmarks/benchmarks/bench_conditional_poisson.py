"""Conditional Poisson: log Z, marginals, products with the covariance, samples, the fit; and the error of log Z.

The large row has many swaps (the circle), "rare swaps" has few (the tree).
"""

import numpy as np

import gumbeltopk as gt

from .common import generator, relative_error, three_digits

SIZES = [(1000, 100, 10), (1, 100_000, 1000)]


def random_logits(shape):
    rows, n, _ = shape
    return generator().normal(size=(rows, n))


class ConditionalPoisson:
    params = (SIZES, ["many swaps", "rare swaps"])
    param_names = ("rows, n, k", "logits")

    def setup(self, shape, kind):
        _, _, self.k = shape
        self.logits = random_logits(shape)
        if kind == "rare swaps":
            self.logits[:, : self.k] += 30.0
        _, self.residuals = gt.conditional_poisson_marginals.fwd(self.logits, self.k)

    def time_log_normalizer(self, shape, kind):
        gt.conditional_poisson_log_normalizer(self.logits, self.k)

    def time_marginals(self, shape, kind):
        gt.conditional_poisson_marginals(self.logits, self.k)

    def time_covariance_product(self, shape, kind):
        gt.conditional_poisson_marginals.vjp(self.residuals, self.logits)

    def peakmem_marginals(self, shape, kind):
        gt.conditional_poisson_marginals(self.logits, self.k)


class Samples:
    params = ([(10, 5, 10_000), (1000, 100, 100), (100_000, 1000, 1)],)
    param_names = ("n, k, samples",)

    def setup(self, size):
        n, k, _ = size
        self.law = gt.ConditionalPoisson(random_logits((1, n, k))[0], k)

    def time_sample(self, size):
        self.law.sample(size[2], rng=generator())


class Fit:
    params = ([(10, 5), (1000, 100), (100_000, 1000)],)
    param_names = ("n, k",)

    def setup(self, size):
        n, k = size
        self.marginals = gt.conditional_poisson_marginals(random_logits((1, n, k))[0], k)

    def time_from_marginals(self, size):
        gt.ConditionalPoisson.from_marginals(self.marginals)

    def track_error(self, size):
        fitted = gt.ConditionalPoisson.from_marginals(self.marginals)
        return relative_error(fitted.marginals(), self.marginals)


class AgainstTheRecursion:
    """The dynamic program over items and counts, in logarithms."""

    params = ([(5000, 200), (100_000, 1000)],)
    param_names = ("n, k",)
    timeout = 120.0

    def track_relative_error_of_log_z(self, size):
        n, k = size
        logits = random_logits((1, n, k))[0]
        log_e = np.full(k + 1, -np.inf)
        log_e[0] = 0.0
        for theta in logits:
            log_e[1:] = np.logaddexp(log_e[1:], log_e[:-1] + theta)
        return three_digits(abs(gt.conditional_poisson_log_normalizer(logits, k) / log_e[k] - 1.0))
