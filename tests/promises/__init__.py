"""Changes that break a promise of docs/reference/semantics.md, kept to prove that a test notices each of them."""
