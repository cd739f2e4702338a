"""Before each job: every mistake that can be known now is refused before anything is paid for."""
