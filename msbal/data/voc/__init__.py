"""Pascal VOC: XML files, the folders they are in, and the lists that define the sets."""
