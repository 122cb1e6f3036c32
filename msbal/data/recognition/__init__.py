"""The data set in a folder, recognised for `msbal init`."""
