"""Where streams live. Each store is one module; none imports another."""
