"""The method: networks, loss and update."""
