"""A run of `msbal train` in mmengine's Runner, and what it shares with the hook in a user's own run."""
