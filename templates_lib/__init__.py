"""WHAT TO SAY: reply templates and finding the one that answers a question."""
