"""Shards as a dataset: the index, the order of the samples, and their stream."""
