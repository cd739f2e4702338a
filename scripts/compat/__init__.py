"""Patches and workarounds of libraries, one file for each trouble: see README.md for the list.

Each says why it is needed and for which version. A test fails as soon as the library no longer needs it.
"""
