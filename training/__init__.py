"""How the embedded model is made: scenes drawn by code, captions, training, export and evaluation.

Nothing here is imported by the worker, and nothing is downloaded.
"""
