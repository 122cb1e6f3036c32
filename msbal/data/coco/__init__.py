"""COCO annotation files: their content by column, and the data set made of it."""
