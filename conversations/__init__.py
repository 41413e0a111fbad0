"""THE TALK ITSELF: from a platform's webhook to the reply that arrived."""
