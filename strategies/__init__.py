"""Strategies: one file an algorithm, each reading like its paper."""
