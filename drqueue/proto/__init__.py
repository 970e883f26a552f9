"""What is said between master, slaves and clients, byte for byte. Pure: no IO, no clock, no dice."""
