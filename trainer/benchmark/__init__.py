"""`trainer benchmark`: the published protocols for mode collapse.

protocol.py defines what a protocol is; mixtures.py (ring and grid) and digits.py are the protocols; recipes.py lists
what is trained on them; run_trials.py trains, results.py keeps each trial, report.py and output.py make the tables.
"""
