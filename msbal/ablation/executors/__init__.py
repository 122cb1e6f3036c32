"""Where the runs of a grid are worked on: this machine, a Ray cluster, or SLURM. One file each."""
