"""Loops that numba compiles: all steps of a row while it lies in cache. Imported only where they are asked for."""
