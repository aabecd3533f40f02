"""The job of a run on a cluster: how it is asked for, what its batch script does, and why each attempt of it ended."""
