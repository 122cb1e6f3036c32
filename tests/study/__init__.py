"""Do the verdicts of `msbal ablate` hold what they say? Thousands of studies whose truth is known.

python3 tests/study
"""
