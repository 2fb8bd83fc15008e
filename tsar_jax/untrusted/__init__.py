"""Read files from elsewhere without trust: nothing runs, links stay, memory is bounded."""
