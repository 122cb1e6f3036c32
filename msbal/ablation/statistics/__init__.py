"""Draw conclusions from arms x seeds.

    values by arm and seed -> pairs (samples) -> a test of all planned comparisons (paired, shared, sequential)
                           -> verdict, measured by `gain` (conclusion) -> sentences (words)

Metrics are in 0..1 throughout. n seeds, A arms, m planned comparisons.
"""
