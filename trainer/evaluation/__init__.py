"""`trainer evaluate`: compare generated pictures with real ones by metrics with confidence intervals.

command.py runs it; prepare.py checks the arguments and returns an EvaluationPlan (plan.py), which extracts features
(extraction.py) of two image sources (source.py, generated_source.py) and measures figures (figures.py, report.py).
"""
