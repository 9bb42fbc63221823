"""Turns RunPod jobs into pictures. Read the modules in the order a job meets them; the README lists it."""
