"""Actions of people: commands and pages call them, and hold no rules of their own."""
