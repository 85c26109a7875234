"""What is kept of each project, in a database and in files."""
