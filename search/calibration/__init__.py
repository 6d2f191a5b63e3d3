"""Measuring a device, and models on it."""
