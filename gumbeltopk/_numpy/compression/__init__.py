"""Successive softmax at a cost that does not grow with k."""
