"""Many tasks at once: a grid, the jobs it expands to, the engines that carry them out, and the table that comes of it."""
