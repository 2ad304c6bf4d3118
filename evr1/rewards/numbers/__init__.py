"""Numbers, scales and units in words and digits."""
