"""Continuous relaxations of the k-hot vector of the k largest keys."""
