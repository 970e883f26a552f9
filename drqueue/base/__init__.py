"""The folder in which DrQueue's binding once was; see `drqueue.base.libdrqueue`."""
