"""Ranks and what they exchange: the exact mean over micro-batches, DDP, collectives, the environment of a rank."""
