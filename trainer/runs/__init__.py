"""The run folder: its layout, settings, journals, checkpoints, and who may write into it."""
