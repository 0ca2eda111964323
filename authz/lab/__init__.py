"""What plays and models, with the real programs: never a part of the service."""
