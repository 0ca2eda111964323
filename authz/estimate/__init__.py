"""What a cluster of many tenants can hold, and what it costs."""
