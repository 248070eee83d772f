"""Profiles: what the rows of a chunk, a run or a training set look like, counted in one pass."""
