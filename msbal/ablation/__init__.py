"""`msbal ablate`: a grid of runs, and what may be concluded from it.

    ablation spec -> grid (arms x seeds, each a whole run spec) -> runner -> run folders -> statistics -> report

Nothing is imported here: the rooms are used by themselves, and some need torch.
"""
