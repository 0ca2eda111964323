"""What plays and models a mesh on one machine: never in the service's image."""
