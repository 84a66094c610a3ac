"""Training the new rows of a longer position table."""
