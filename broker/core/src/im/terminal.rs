//! Sessions that come and go, and the terminals they are.
