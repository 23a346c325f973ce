"""Runs what asyncflow decides."""
