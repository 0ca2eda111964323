"""Side by side: the same requests through real Envoys, with one way of authorization or another."""
