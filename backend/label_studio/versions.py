"""What AFTER's versions are called in Label Studio, so that they are told from everybody else's."""

OWN = "after-"  # the beginning of every version that AFTER pushes
WINDOW = f"{OWN}s"  # of a window's
BESIDE = f"{OWN}all-"  # of what is stored beside the order (push_beside)
# Of the order: windows, what older releases pushed, and what /predict answers before a model.
ORDERS = (WINDOW, f"{OWN}r", f"{OWN}pending")
