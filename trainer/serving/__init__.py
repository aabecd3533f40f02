"""A page and an API on which generators paint: for a browser on this machine, or for others who have a token."""
