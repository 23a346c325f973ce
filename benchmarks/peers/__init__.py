"""The same work in what one would pick instead; each peer in an environment of its own."""
