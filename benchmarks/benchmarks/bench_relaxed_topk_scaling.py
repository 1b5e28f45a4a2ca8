"""What k costs: nearly nothing, in the compressed form. And what the forward costs next to a single exp."""

import numpy as np

from .common import interleaved_ratio
from .contenders import contender, make_task


class RelaxedTopKSteps:
    """Time at k = 1000 over time at k = 10, on the same keys: 100 where each step goes over all items."""

    params = ([1_000_000, 10_000_000],)
    param_names = ("n",)
    timeout = 600

    def setup(self, n):
        self.many, self.few = (contender("gumbeltopk", make_task((1, n, k))) for k in (1000, 10))

    def track_ratio_steps_forward(self, n):
        return interleaved_ratio(self.many.forward, self.few.forward)

    def track_ratio_steps_forward_and_vjp(self, n):
        return interleaved_ratio(self.many.forward_and_vjp, self.few.forward_and_vjp)

    track_ratio_steps_forward.unit = "time at k = 1000 / time at k = 10"
    track_ratio_steps_forward_and_vjp.unit = "time at k = 1000 / time at k = 10"


class RelaxedTopKInPasses:
    """The forward at n = 1e6, k = 1000 in units of one `np.exp` over the same keys.

    exp puts its result in a new array, as `relaxed_topk` does, or in one that is there already.
    """

    params = (["new", "given"],)
    param_names = ("result of exp",)

    def setup(self, result):
        task = make_task((1, 1_000_000, 1000))
        self.forward = contender("gumbeltopk", task).forward
        out = None if result == "new" else np.empty_like(task.keys)
        self.one_exp = lambda: np.exp(task.keys, out=out)

    def track_ratio_to_one_exp(self, result):
        return interleaved_ratio(self.forward, self.one_exp)

    track_ratio_to_one_exp.unit = "time of np.exp"
