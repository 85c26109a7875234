"""What the commands do that are more than a call: doctor, and a Label Studio of our own."""
