"""Backbone in, Result out."""
