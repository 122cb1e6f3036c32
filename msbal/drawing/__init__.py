"""Images with boxes on them, drawn with Pillow: training data, detections beside what was to be found, predictions."""
