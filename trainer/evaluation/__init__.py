"""`trainer evaluate`: from two sets of pictures to numbers that say where they come from."""
