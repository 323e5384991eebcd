"""The studio: paint a label map in the browser, see the picture.

The command is `dpsims studio`; it needs the extra `studio`.
"""
