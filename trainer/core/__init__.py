"""What every package of the trainer may use, and what knows none of them."""
