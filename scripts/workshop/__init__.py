"""What every notebook imports: session, source staging, preflight, live view and reports.

Runs on the notebook side, so nothing here needs torch, transformers or TRL.
"""
