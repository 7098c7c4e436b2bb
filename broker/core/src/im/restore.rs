//! What is known after a start: every row of the resident tables, read once.
