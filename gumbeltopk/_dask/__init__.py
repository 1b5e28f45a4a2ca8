"""What `gumbeltopk.dask` is made of: `graphs` builds, and the other modules are what tasks do, without Dask."""
