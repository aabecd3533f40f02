"""The commands of `python -m launcher`, one file each."""
