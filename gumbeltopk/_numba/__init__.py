"""Compiled cores for NumPy arrays, with the optional package numba: see `policy` for when they are used."""
