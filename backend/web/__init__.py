"""What Label Studio and people see over HTTP: answers to it, the status page, metrics."""
