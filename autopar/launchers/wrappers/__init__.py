"""What starts a launcher's files on every node of a cluster."""
