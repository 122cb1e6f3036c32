"""mmdet's configs: read, with the spec applied to them, and the pipelines and data sets that they describe."""
