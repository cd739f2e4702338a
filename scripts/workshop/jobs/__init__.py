"""While a job runs and after it: its status, log, live view and outputs."""
