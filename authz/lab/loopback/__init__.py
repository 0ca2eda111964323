"""A cluster on the loopback interface: real Envoys, small apps, and who may call whom."""
