"""What data set is in a folder, for `msbal init`."""
