"""Exact distributions of samples without replacement: ordered (eq. 1) and unordered (eq. 2)."""
