"""The SMS that came in, and the customers that they are for."""
