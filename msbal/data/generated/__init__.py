"""The generated data set: made from a seed on first use."""
