"""YOLO: text files with a box a line, and the names of the classes."""
