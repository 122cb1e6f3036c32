"""mmdet's configs: reading them, the schedules, pipelines and data sets that they describe, and what to say of them."""
