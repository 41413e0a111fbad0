"""WHAT CAME OF IT: numbers managers can trust."""
