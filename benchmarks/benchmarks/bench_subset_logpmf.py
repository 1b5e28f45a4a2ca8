"""The probability of subsets, eq. 2, and its gradient."""

import numpy as np

import gumbeltopk as gt

from .common import generator, random_weights


class SubsetLogPMF:
    params = ([(1000, 100, 10), (1, 10_000, 500)],)
    param_names = ("rows, n, k",)

    def setup(self, shape):
        rows, n, k = shape
        self.log_weights = np.log(random_weights(rows, n))
        self.indices = np.argsort(generator().random((rows, n)), axis=-1)[:, :k]
        _, self.residuals = gt.subset_logpmf.fwd(self.log_weights, self.indices)
        self.cotangent = np.ones(rows)

    def time_value(self, shape):
        gt.subset_logpmf(self.log_weights, self.indices)

    def time_fwd(self, shape):
        gt.subset_logpmf.fwd(self.log_weights, self.indices)

    def time_vjp(self, shape):
        gt.subset_logpmf.vjp(self.residuals, self.cotangent)

    def peakmem_value(self, shape):
        gt.subset_logpmf(self.log_weights, self.indices)
