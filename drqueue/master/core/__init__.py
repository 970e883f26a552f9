"""The master's decisions. Pure: events in, records and effects out."""
