"""asv benchmarks of gumbeltopk: time, memory, and accuracy as well as ratios, both tracked as numbers.

Everything is timed on one thread: ours and that of each peer. The variables are set here, because the libraries read
them when they are imported, NumPy's BLAS included.
"""

import os

ONE_THREAD = {
    "GUMBELTOPK_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",  # XLA's thread pool, too
    "JAX_PLATFORMS": "cpu",
}

os.environ.update(ONE_THREAD)
