"""What the command lines of all four packages share. It imports none of them, so that slurm too may use it."""
