"""MAY IT BE SAID: rule packs and the review every outgoing text passes."""
