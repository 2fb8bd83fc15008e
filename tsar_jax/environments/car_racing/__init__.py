"""Car racing, compiled: thousands of cars in one program."""
