"""The relaxed top-k against PyTorch and JAX in the same process, and against float64 logarithms; memory.

float32, t = 1, one thread each. A peer that is not installed is skipped.
"""

from .common import SIZES, TEMPERATURE, interleaved_ratio, largest_relative_error, relative_error
from .contenders import PEERS, check_tape_fits, contender, make_task
from .reference import relaxed_topk_and_vjp


class AgainstPeers:
    """Both sides take turns; see `contenders` for what each does."""

    params = (PEERS, SIZES)
    param_names = ("peer", "rows, n, k")
    timeout = 1800

    def setup(self, peer, shape):
        self.task = make_task(shape)
        self.peer, self.ours = contender(peer, self.task), contender("gumbeltopk", self.task)


class RelaxedTopKAgainstPeers(AgainstPeers):
    def track_ratio_forward(self, peer, shape):
        return interleaved_ratio(self.peer.forward, self.ours.forward)

    track_ratio_forward.unit = "times as fast as the peer"


class RelaxedTopKGradientAgainstPeers(AgainstPeers):
    """Value and gradient: forward and one VJP by the keys."""

    def setup(self, peer, shape):
        super().setup(peer, shape)
        check_tape_fits(peer, self.task)

    def track_ratio_forward_and_vjp(self, peer, shape):
        return interleaved_ratio(self.peer.forward_and_vjp, self.ours.forward_and_vjp)

    track_ratio_forward_and_vjp.unit = "times as fast as the peer"


class RelaxedTopKAgainstReference:
    """Errors of the float32 result on the same float32 keys."""

    params = (SIZES,)
    param_names = ("rows, n, k",)
    timeout = 1800

    def setup_cache(self):
        exact = {}
        for shape in SIZES:
            task = make_task(shape)
            exact[shape] = relaxed_topk_and_vjp(task.keys, task.k, TEMPERATURE, task.cotangent)
        return exact

    setup_cache.timeout = 1800

    def setup(self, exact, shape):
        self.value, self.gradient = contender("gumbeltopk", make_task(shape)).forward_and_vjp()

    def track_error_forward(self, exact, shape):
        return largest_relative_error(self.value, exact[shape][0])

    def track_error_vjp(self, exact, shape):
        return relative_error(self.gradient, exact[shape][1])

    track_error_forward.unit = "largest relative error of an item"
    track_error_vjp.unit = "norm of the error over norm"


class RelaxedTopKMemoryAtPeerSizes:
    """No k x n array: the memory does not grow with k."""

    params = (SIZES,)
    param_names = ("rows, n, k",)

    def setup(self, shape):
        self.ours = contender("gumbeltopk", make_task(shape))

    def peakmem_value(self, shape):
        self.ours.forward()

    def peakmem_fwd_and_vjp(self, shape):
        self.ours.forward_and_vjp()
