"""Image files: found by name, read by one rule, checked against their annotations."""
