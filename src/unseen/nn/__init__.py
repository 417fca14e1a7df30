"""Parts that at least two methods use. Parts know nothing of methods."""
