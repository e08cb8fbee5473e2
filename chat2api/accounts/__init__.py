"""The pool of accounts: who is next, how they fare, and their tokens."""
