"""Turns that do more than answer: each is a turn like any other to the queue and to its readers."""
