"""One command that shows what loading costs here, on a real small model."""
