"""Activities: all I/O, in classes whose clients are injected, each step safe to repeat."""
