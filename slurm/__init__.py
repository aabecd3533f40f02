"""Facts about a Slurm cluster, and a real one with several nodes on this machine to try things on."""
