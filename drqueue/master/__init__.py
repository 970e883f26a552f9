"""The master daemon: decides which frame runs where, and remembers everything it promised."""
