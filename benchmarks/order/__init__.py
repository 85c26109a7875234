"""How fast the order follows the labels, against a real Label Studio, at any size of project."""
