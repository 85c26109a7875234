"""The worker: what each project needs, and the durable jobs that do it."""
