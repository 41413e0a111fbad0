"""WHOM TO WRITE FIRST: segments and campaigns, to people who agreed."""
