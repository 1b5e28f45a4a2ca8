"""Eqs. 3-5 and their gradient in float64 and in logarithms, step by step: the exact result to compare with.

Against many digits: value 9e-16, gradient 3e-15 for Gumbel keys. The largest item of a row gets 1 - p as the sum of the
others, so the value stays exact where p is near 1; a key that is 20 t ahead costs the gradient eight digits. Only the
keys of some steps are kept; the steps between two of them are made again.
"""

import math

import numpy as np


def relaxed_topk_and_vjp(keys, k, temperature, cotangent):
    """Value and gradient by the keys, float64, for keys and cotangent of shape (rows, n)."""
    g = np.asarray(cotangent, dtype=np.float64)
    stride = math.isqrt(k - 1) + 1
    relaxed, kept = _forward(np.asarray(keys, dtype=np.float64), k, temperature, stride)
    x = np.zeros_like(g)  # gradient by the keys of the step after
    for first in reversed(range(0, k, stride)):
        alpha = kept[first]
        steps = []
        for _ in range(first, min(first + stride, k)):
            log_p, log_rest = _step(alpha, temperature)
            steps.append((np.exp(log_p), np.exp(log_p - log_rest)))
            alpha = alpha + log_rest
        for p, odds in reversed(steps):
            h = p * g - odds * x
            x = x + (h - p * h.sum(axis=-1, keepdims=True)) / temperature
    return relaxed, x


def _forward(alpha, k, temperature, stride):
    relaxed, kept = np.zeros_like(alpha), {}
    for step in range(k):
        if step % stride == 0:
            kept[step] = alpha
        log_p, log_rest = _step(alpha, temperature)
        relaxed += np.exp(log_p)
        alpha = alpha + log_rest
    return relaxed, kept


def _step(alpha, temperature):
    """log p and log(1 - p) of the softmax of alpha / temperature."""
    scaled = alpha / temperature
    top = np.argmax(scaled, axis=-1)[:, None]
    highest = np.take_along_axis(scaled, top, axis=-1)
    exponentials = np.exp(scaled - highest)
    np.put_along_axis(exponentials, top, 0.0, axis=-1)
    others = exponentials.sum(axis=-1, keepdims=True)
    log_total = highest + np.log1p(others)
    log_p = scaled - log_total
    with np.errstate(divide="ignore"):  # log 0 at the top of a row, which the next line replaces
        log_rest = np.log1p(-np.exp(log_p))
    np.put_along_axis(log_rest, top, np.log(others) - np.log1p(others), axis=-1)
    return log_p, log_rest
