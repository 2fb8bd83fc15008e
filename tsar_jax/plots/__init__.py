"""The style of figures, and drawing functions shared by all families of systems."""
