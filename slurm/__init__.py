"""Read and control any Slurm cluster, and run a real one with several nodes on this machine.

Any cluster: `control` (jobs, nodes, partitions), `job_environment` (inside a job), `profile` (a site's settings).
A development cluster for tests and trials: `dev_cluster`, and `python -m slurm`.
"""
