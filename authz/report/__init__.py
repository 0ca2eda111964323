"""From shadow to enforce: what the decision log and running servers say."""
