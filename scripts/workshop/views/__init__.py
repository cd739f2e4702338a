"""What a notebook shows: plots, tables, the results file."""
