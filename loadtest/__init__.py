"""Load for the service, and what it costs: numbers that anyone can reproduce.

It brings its own stack, on loopback and free ports, and takes it down afterwards. An answer that
is not the expected one fails a run, however fast it came.
"""
