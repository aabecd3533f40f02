"""The training loop and what surrounds it. Read loop.py first."""
