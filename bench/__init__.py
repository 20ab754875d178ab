"""What the sidecar costs, measured from outside, beside floors taken in the same run."""
