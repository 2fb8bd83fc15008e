"""What improves plasticity across lifetimes."""
