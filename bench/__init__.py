"""Benchmarks beside what others do: `python -m bench` runs all, `python -m bench.NAME` one."""
