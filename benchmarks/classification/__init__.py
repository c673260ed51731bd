"""Frozen features, linear heads and nearest neighbours."""
