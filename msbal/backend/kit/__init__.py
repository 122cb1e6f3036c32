"""What every backend needs, once. Nothing here knows a framework."""
