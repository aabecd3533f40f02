"""Processes on this machine, and what a process is told of the job that it belongs to."""
