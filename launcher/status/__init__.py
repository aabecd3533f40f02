"""`launcher status`: what runs do and why, from the run folder first and Slurm second."""
