"""Images with boxes on them, drawn with Pillow: training data, detections beside the ground truth, predictions."""
