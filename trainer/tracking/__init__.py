"""The journals of a run, what stands on the console, and the process that sends both to W&B."""
