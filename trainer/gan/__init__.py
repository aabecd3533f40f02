"""The training step and its state. Read step.py first."""
