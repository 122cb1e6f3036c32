"""Pascal VOC: XML files, the folders they lie in and the lists that make the sets."""
