"""The door for programs: what they may read, with a token of the shop."""
