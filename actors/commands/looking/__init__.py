"""Commands that only look: the story of a customer, the audit trail, and what is wrong with the installation."""
