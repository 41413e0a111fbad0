"""HOW WE GET BETTER: quality reviews and training."""
