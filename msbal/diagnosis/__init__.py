"""What the levels of a model do to each other: gradients and AP by level, in numbers and in words."""
