"""Processes in place of containers: their folders, how they are kept apart, and how they end."""
