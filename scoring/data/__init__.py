"""Data: read the input, check it, write parts, publish them as one."""
