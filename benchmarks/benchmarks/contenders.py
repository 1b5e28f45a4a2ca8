"""The relaxed top-k by this library and by its peers, each written as its users write it.

The peers follow eqs. 3-5 step by step: k times a softmax, and log(1 - p), with 1 - p clamped at the smallest float, as
in the public implementations. All sides do equal work: float32 keys in memory of their own, the value out; or the
value and its gradient for a given cotangent. Each function returns when its results are complete.
"""

import importlib.util
import os
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gumbeltopk as gt

from .common import TEMPERATURE, generator

PEERS = ["torch", "jax"]
SMALLEST = float(np.finfo(np.float32).tiny)
UNROLLED_AT_MOST = 128  # steps; XLA compiles more of them for minutes
TAPE_ARRAYS = {"torch": 7, "jax": 4}  # of the size of the keys, held for each step of the gradient (measured: 6.9, 3.1)


class Task(NamedTuple):
    """Keys (rows, n), a cotangent of the same shape, and k."""

    keys: np.ndarray
    cotangent: np.ndarray
    k: int


class Contender(NamedTuple):
    """Two functions without arguments."""

    forward: Any
    forward_and_vjp: Any  # -> value, gradient


def make_task(shape):
    """Gumbel keys of equal weights and a normal cotangent for (rows, n, k), float32."""
    rows, n, k = shape
    rng = generator()
    keys, cotangent = rng.gumbel(size=(rows, n)), rng.normal(size=(rows, n))
    return Task(keys.astype(np.float32), cotangent.astype(np.float32), k)


def contender(name, task):
    """This library or a peer, ready to run; NotImplementedError, which asv takes for a skip, if it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise NotImplementedError(f"{name} is not installed")
    return MAKERS[name](task)


def check_tape_fits(peer, task):
    """NotImplementedError where the steps that a peer keeps for its gradient do not fit in the memory."""
    needed, available = TAPE_ARRAYS[peer] * task.keys.nbytes * task.k, available_memory()
    if needed > available:
        gigabytes = f"{needed / 1e9:.0f} GB for the gradient, and {available / 1e9:.0f} GB are available"
        raise NotImplementedError(f"{peer} needs about {gigabytes}")


def available_memory():
    """Bytes that can be had without swapping, as Linux tells; elsewhere all memory."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def ours(task):
    """`gt.relaxed_topk` on one thread."""
    gt.set_num_threads(1)
    settings = {"temperature": TEMPERATURE}

    def forward_and_vjp():
        value, residuals = gt.relaxed_topk.fwd(task.keys, task.k, **settings)
        return value, gt.relaxed_topk.vjp(residuals, task.cotangent)

    return Contender(lambda: gt.relaxed_topk(task.keys, task.k, **settings), forward_and_vjp)


def torch_eager(task):
    """PyTorch, eager, its autograd."""
    import torch

    torch.set_num_threads(1)
    keys, cotangent = torch.from_numpy(task.keys), torch.from_numpy(task.cotangent)

    def relaxed_topk(alpha):
        relaxed = torch.zeros_like(alpha)
        for step in range(task.k):
            p = torch.softmax(alpha / TEMPERATURE, dim=-1)
            relaxed = relaxed + p
            if step + 1 < task.k:
                alpha = alpha + torch.log(torch.clamp(1.0 - p, min=SMALLEST))
        return relaxed

    def forward():
        with torch.no_grad():
            return relaxed_topk(keys)

    def forward_and_vjp():
        leaf = keys.detach().requires_grad_()
        value = relaxed_topk(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, cotangent)
        return value.detach(), gradient

    return Contender(forward, forward_and_vjp)


def jax_jit(task):
    """JAX, compiled; the steps unrolled or as `lax.scan`, whichever runs faster, for each function on its own."""
    import jax
    import jax.numpy as jnp

    keys, cotangent = jnp.asarray(task.keys), jnp.asarray(task.cotangent)

    def step(alpha, relaxed):
        p = jax.nn.softmax(alpha / TEMPERATURE, axis=-1)
        return alpha + jnp.log(jnp.maximum(1.0 - p, SMALLEST)), relaxed + p

    def unrolled(alpha):
        relaxed = jnp.zeros_like(alpha)
        for _ in range(task.k):  # XLA drops the last log, which nobody reads
            alpha, relaxed = step(alpha, relaxed)
        return relaxed

    def scanned(alpha):
        start = (alpha, jnp.zeros_like(alpha))
        (_, relaxed), _ = jax.lax.scan(lambda carry, _: (step(*carry), None), start, length=task.k)
        return relaxed

    def with_gradient(function, alpha, cotangent):
        value, pull_back = jax.vjp(function, alpha)
        return value, pull_back(cotangent)[0]

    def finished(function, *arguments):
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*arguments))

    forms = [unrolled, scanned] if task.k <= UNROLLED_AT_MOST else [scanned]
    return Contender(
        LazyFastest([finished(form, keys) for form in forms]),
        LazyFastest([finished(partial(with_gradient, form), keys, cotangent) for form in forms]),
    )


class LazyFastest:
    """The fastest of some functions, found at the first call: compiling what is never called costs minutes."""

    def __init__(self, functions):
        self.functions = functions

    def __call__(self):
        if len(self.functions) > 1:
            self.functions = [min(self.functions, key=_seconds)]
        return self.functions[0]()


def _seconds(function, calls=3):
    """Of the fastest of a few calls, after one to warm up."""
    function()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


MAKERS = {"gumbeltopk": ours, "torch": torch_eager, "jax": jax_jit}
