"""Speed against what a user would take instead, side by side in one run. Not part of the package."""
