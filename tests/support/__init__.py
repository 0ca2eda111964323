"""What the tests of the service's edge share, by topic."""
