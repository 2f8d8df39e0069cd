"""Speed, measured side by side with peers: JSON out."""
