"""Statistics in, weights out: what a strategy is, the paper's four actions, and RLO."""
