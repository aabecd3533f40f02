"""What may be concluded from the results of a study: intervals, comparisons, rankings."""
