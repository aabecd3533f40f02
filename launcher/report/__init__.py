"""`launcher report`: one page that tells all of a run, of several side by side, or of a study."""
