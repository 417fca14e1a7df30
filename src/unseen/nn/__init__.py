"""Parts of networks that at least two methods use. Parts never import methods."""
