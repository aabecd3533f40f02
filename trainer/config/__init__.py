"""All settings of a run: their groups, what goes with what, the recipes."""
