"""COCO annotation files: what they say, and the data set that it makes."""
