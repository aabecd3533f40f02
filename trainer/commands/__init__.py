"""What `python -m trainer` does: train, fingerprint, sample, interpolate."""
