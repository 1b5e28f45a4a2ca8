"""Cores in plain Array API code: for every namespace, and the reference for the native ones."""
