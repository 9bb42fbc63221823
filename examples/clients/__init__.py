"""How to ask a deployed endpoint, or the one on your desk, for pictures: one short program for each client."""
