"""The slave's core: decides what to run, stop, report and forget. PURE: no IO, no clock, no dice."""
