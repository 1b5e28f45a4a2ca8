"""Inclusion probabilities of single items and of pairs, and their gradients."""

import numpy as np

import gumbeltopk as gt

from .common import generator, random_weights, three_digits


class InclusionProbabilities:
    params = ([(1, 1_000_000, 1000), (1, 1_000_000, 10), (1, 10_000, 100), (1000, 100, 10)],)
    param_names = ("rows, n, k",)
    timeout = 300

    def setup(self, shape):
        rows, n, k = shape
        self.log_weights, self.k = np.log(random_weights(rows, n)), k
        self.value, self.residuals = gt.inclusion_probabilities.fwd(self.log_weights, k)
        self.cotangent = generator().normal(size=(rows, n))

    def time_value(self, shape):
        gt.inclusion_probabilities(self.log_weights, self.k)

    def time_vjp(self, shape):
        gt.inclusion_probabilities.vjp(self.residuals, self.cotangent)

    def peakmem_vjp(self, shape):
        gt.inclusion_probabilities.vjp(self.residuals, self.cotangent)

    def track_error_of_the_sum(self, shape):
        return three_digits(np.max(np.abs(self.value.sum(axis=-1) / self.k - 1.0)))


class JointInclusionProbabilities:
    params = ([(1, 400, 100), (100, 12, 4)],)
    param_names = ("rows, n, k",)
    timeout = 300

    def setup(self, shape):
        rows, n, k = shape
        self.log_weights, self.k = np.log(random_weights(rows, n)), k
        value, self.residuals = gt.joint_inclusion_probabilities.fwd(self.log_weights, k)
        self.cotangent = generator().normal(size=value.shape)

    def time_value(self, shape):
        gt.joint_inclusion_probabilities(self.log_weights, self.k)

    def time_vjp(self, shape):
        gt.joint_inclusion_probabilities.vjp(self.residuals, self.cotangent)
