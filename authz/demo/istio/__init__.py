"""A mesh in a box."""
