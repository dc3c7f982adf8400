"""Textline: a messaging service that takes SMS from a carrier for its customers."""
