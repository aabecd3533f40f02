"""Bundles from the checkpoints of other programs: read without running any of their code, mapped tensor by tensor."""
