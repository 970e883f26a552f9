"""The demonstration: a renderer that ships with the project, its scenes, and the contact sheet."""
