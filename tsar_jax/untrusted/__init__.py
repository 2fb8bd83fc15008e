"""Files from elsewhere, read without trust: nothing runs, no link is followed, memory is bounded."""
