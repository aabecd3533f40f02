"""Datasets prepared on a cluster: one array, each of whose tasks makes a share, and a job that finishes."""
