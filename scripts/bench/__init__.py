"""What the workshop costs beside the bare library, how it grows and scales: `make bench`, docs/bench.md. Nothing here is a test."""
