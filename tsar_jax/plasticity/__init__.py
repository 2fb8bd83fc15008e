"""What changes weights within a lifetime."""
