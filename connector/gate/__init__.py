"""Where a use is decided, run under limits, its output checked, and metered."""
