"""Studies: recipes × settings × seeds at the same budget, and what may be concluded from them."""
