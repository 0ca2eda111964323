"""What every play needs: processes, certificates, a real Envoy, the service itself."""
