"""What rows say: estimates, tests, tables, pictures, the page."""
