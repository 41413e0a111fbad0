"""HOW IT IS PUT TOGETHER: settings, console, URLs, processes. Nothing imports this package."""
