"""Programs of a response and their tests, in confined processes."""
