"""Colours of words in HTML that are read on white and on a dark theme alike: a contrast of 4 to 1 with both.

Where the theme's own colour will do, name none. Plots bring their own white ground.
"""

GOOD, CAUTION, BAD = "#00855f", "#9a6b00", "#d6401f"  # green, amber, red
QUIET = "#767676"  # beside what matters: the lines of a log
