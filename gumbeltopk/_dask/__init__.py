"""What `gumbeltopk.dask` does inside one block or partition, and with what blocks leave: NumPy, and no Dask."""
