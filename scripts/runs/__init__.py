"""A run of the notebooks as one sees it: while it goes on in a terminal, and afterwards as a page."""
