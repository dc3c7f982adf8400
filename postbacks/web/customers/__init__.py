"""Customers' pages: sentences for a customer's developer, and a veil over what is secret."""
