"""`launcher doctor`: tries on the nodes what a job needs, and says what is wrong and what to do."""
