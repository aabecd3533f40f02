"""`launcher watch`: a live view of all runs in a terminal, with keys for what one does with them."""
