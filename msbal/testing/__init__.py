"""For the tests of backends, also of those that live elsewhere. Needs pytest."""
