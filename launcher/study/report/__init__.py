"""The page of a study, its tables and figures, and the files for spreadsheets."""
